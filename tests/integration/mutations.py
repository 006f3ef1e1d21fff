"""Ways to break a finished card, each with the rules that must name it. Made by debugfs, mtools and plain bytes."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from phony import BOOT_START, ROOT_START
from readback import content, fat_content, stats, tool

from piimage.disk import ext4
from piimage.disk.ext4 import open_ext4
from piimage.disk.fat import open_fat

if TYPE_CHECKING:
    from collections.abc import Callable

SEED = "/var/lib/cloud/seed/nocloud"
KEY = "/etc/ssh/ssh_host_ed25519_key"
UNITS = "/etc/systemd/system"
SUPER = ROOT_START + 1024


@dataclass(frozen=True)
class Mutation:
    """`act` breaks the image; every one of `rules` must be broken, one of them at `path`.

    Without `alone`, only who knows the build can tell. `says` is part of what is said. `cluster` is what cluster.yaml
    has had replaced since the build, by what.
    """

    name: str
    act: Callable[[Path], None]
    rules: str
    path: str = ""
    alone: bool = True
    says: str = ""
    cluster: tuple[str, str] | None = None


def debugfs(image: Path, *commands: str) -> None:
    script = "\n".join(commands).encode()
    tool("debugfs", "-w", "-f", "-", f"{image}?offset={ROOT_START}", stdin=script)


def put(image: Path, path: str, data: bytes) -> None:
    """Another content, in a new inode with the mode and owner of the old one."""
    old = stats(image, [path])[path]
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "source")
        source.write_bytes(data)
        mode, uid, gid = (old.mode, old.uid, old.gid) if old else (0o644, 0, 0)
        debugfs(
            image, *([f"rm {path}"] if old else []), f"write {source} {path}",
            f"sif {path} mode 0{0o100000 | mode:o}", f"sif {path} uid {uid}", f"sif {path} gid {gid}",
        )  # fmt: skip


def do(*commands: str) -> Callable[[Path], None]:
    """Commands of debugfs."""
    return lambda image: debugfs(image, *commands)


def nothing(_image: Path) -> None:
    """The card stays as it was built."""


def text(path: str, data: str, mode: int | None = None) -> Callable[[Path], None]:
    """A file of this content."""

    def act(image: Path) -> None:
        put(image, path, data.encode())
        if mode is not None:
            debugfs(image, f"sif {path} mode 0{0o100000 | mode:o}")

    return act


def sub(path: str, pattern: str, by: str) -> Callable[[Path], None]:
    """A file with one thing in it replaced."""

    def act(image: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            old = content(image, path, Path(scratch)).decode()
        new, count = re.subn(pattern, by, old, count=1, flags=re.MULTILINE)
        assert count, (path, old)
        put(image, path, new.ljust(len(old), "\n").encode())

    return act


def fat_put(name: str, data: bytes) -> Callable[[Path], None]:
    def act(image: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            source = Path(scratch, "source")
            source.write_bytes(data)
            tool("mcopy", "-o", "-i", f"{image}@@{BOOT_START}", source, f"::/{name}")

    return act


def fat_sub(name: str, pattern: str, by: str) -> Callable[[Path], None]:
    def act(image: Path) -> None:
        old = fat_content(image, name).decode()
        new, count = re.subn(pattern, by, old, count=1)
        assert count, (name, old)
        fat_put(name, new.encode())(image)

    return act


def fat_del(name: str) -> Callable[[Path], None]:
    def act(image: Path) -> None:
        tool("mdel", "-i", f"{image}@@{BOOT_START}", f"::/{name}")

    return act


def at(offset: int, data: bytes) -> Callable[[Path], None]:
    """Bytes of the disk."""

    def act(image: Path) -> None:
        with image.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    return act


def both(*acts: Callable[[Path], None]) -> Callable[[Path], None]:
    """One after the other."""

    def act(image: Path) -> None:
        for each in acts:
            each(image)

    return act


def backup_gone(image: Path) -> None:
    """The first copy of the root's superblock, which is all that is left when the first is lost."""
    with open_ext4(image, ROOT_START) as found:
        superblock = found.inodes.superblock
    at(ROOT_START + superblock.group_start(1) * superblock.block_size, bytes(1024))(image)


def flip(path: str, where: int) -> Callable[[Path], None]:
    """A byte of a file, in place: size, mode and times stay."""

    def act(image: Path) -> None:
        _, place, _ = ext4.extents(image, ROOT_START, path)[0]
        with image.open("r+b") as file:
            file.seek(place + where)
            byte = file.read(1)[0]
            file.seek(place + where)
            file.write(bytes([byte ^ 1]))

    return act


def mark_in_use(image: Path) -> None:
    """What Linux writes into a FAT when it mounts it."""
    at(BOOT_START + 0x41, b"\x01")(image)


def second_table(image: Path) -> None:
    """The FAT's two tables disagree."""
    with open_fat(image, BOOT_START) as fat:
        place = BOOT_START + fat.fat_start + fat.fat_size + 4000
    at(place, b"\x07\0\0\0")(image)


def tune(*words: str) -> Callable[[Path], None]:
    """tune2fs on the root file system, which it wants in a file of its own."""

    def act(image: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            volume = Path(scratch, "volume")
            with image.open("rb") as source:
                source.seek(ROOT_START)
                volume.write_bytes(source.read())
            tool("tune2fs", *words, volume)
            at(ROOT_START, volume.read_bytes())(image)

    return act


def truncated(image: Path) -> None:
    with image.open("r+b") as file:
        file.truncate(ROOT_START + (24 << 20))


def directory_for_link(image: Path) -> None:
    debugfs(image, "rm /lib", "mkdir /lib", "sif /lib mode 040755")


MUTATIONS = [
    # modes
    Mutation("sudoers-mode", do("sif /etc/sudoers.d/010_ada mode 0100666"), "PI102 PI216", "/etc/sudoers.d/010_ada"),
    Mutation("host-key-mode", do(f"sif {KEY} mode 0100644"), "PI102 PI207 PI219", KEY),
    Mutation("shadow-mode", do("sif /etc/shadow mode 0100644"), "PI102 PI220", "/etc/shadow"),
    Mutation("seed-mode", do(f"sif {SEED}/user-data mode 0100644"), "PI102 PI219", f"{SEED}/user-data"),
    Mutation("seed-folder-mode", do(f"sif {SEED} mode 040755"), "PI102 PI219", SEED),
    Mutation("home-mode", do("sif /home/ada mode 040777"), "PI102 PI218", "/home/ada"),
    Mutation("tmp-without-sticky-bit", do("sif /tmp mode 040777"), "PI102", "/tmp"),
    Mutation("set-uid", do("sif /usr/bin/dash mode 0104755"), "PI102", "/usr/bin/dash"),
    # owners
    Mutation("authorized-keys-owner", do("sif /home/ada/.ssh/authorized_keys uid 1001"), "PI102 PI218",
             "/home/ada/.ssh/authorized_keys"),
    Mutation("home-owner", do("sif /home/ops uid 0"), "PI102 PI218", "/home/ops"),
    Mutation("sudoers-owner", do("sif /etc/sudoers uid 1000"), "PI102 PI216", "/etc/sudoers"),
    Mutation("shadow-group", do("sif /etc/shadow gid 1000"), "PI102", "/etc/shadow"),
    Mutation("skeleton-in-home", do("sif /home/ada/.bashrc uid 0"), "PI102", "/home/ada/.bashrc"),
    # contents
    Mutation("sshd-root", sub("/etc/ssh/sshd_config.d/10-piimage.conf", "prohibit-password", "yes"), "PI101 PI217",
             "/etc/ssh/sshd_config.d/10-piimage.conf"),
    Mutation("sshd-word", text("/etc/ssh/sshd_config.d/20-own.conf", "PermitRotLogin no\n"), "PI104 PI217",
             "/etc/ssh/sshd_config.d/20-own.conf"),
    Mutation("sshd-value", text("/etc/ssh/sshd_config.d/20-own.conf", "PermitRootLogin maybe\n"), "PI104 PI217",
             "/etc/ssh/sshd_config.d/20-own.conf"),
    Mutation("sshd-without-include", sub("/etc/ssh/sshd_config", "^Include.*", "# none"), "PI101 PI217",
             "/etc/ssh/sshd_config"),
    Mutation("hosts-address", sub("/etc/hosts", r"10\.9\.1\.4", "10.9.1.9"), "PI101 PI221", "/etc/hosts"),
    Mutation("hosts-loopback", sub("/etc/hosts", r"10\.9\.1\.4 ", "127.0.1.1 "), "PI101 PI221", "/etc/hosts"),
    Mutation("hosts-without-node", sub("/etc/hosts", r"^.*node3\n", ""), "PI101 PI221", "/etc/hosts"),
    Mutation("passwd-uid", sub("/etc/passwd", "^ada:x:1000:", "ada:x:1005:"), "PI101 PI218", "/etc/passwd"),
    Mutation("passwd-second-root", sub("/etc/passwd", "^ops:x:1001:", "ops:x:0:"), "PI101 PI220 PI109", "/etc/passwd"),
    Mutation("passwd-shell", sub("/etc/passwd", "^(ada:.*)/bin/bash$", r"\1/bin/sh"), "PI101", "/etc/passwd"),
    Mutation("passwd-shell-nowhere", sub("/etc/passwd", "^(ada:.*)/bin/bash$", r"\1/bin/zsh"), "PI101 PI226",
             "/etc/passwd"),
    Mutation("passwd-line-gone", sub("/etc/passwd", r"^ops:.*\n", ""), "PI101 PI109", "/etc/passwd"),
    Mutation("shadow-empty", sub("/etc/shadow", "^ada:[^:]*:", "ada::"), "PI101 PI220", "/etc/shadow"),
    Mutation("group-gone", sub("/etc/group", r"^ops:.*\n", ""), "PI101 PI109", "/etc/group"),
    Mutation("gshadow-line-gone", sub("/etc/gshadow", r"^ada:.*\n", ""), "PI101 PI109", "/etc/gshadow"),
    Mutation("sudoers-rule", text("/etc/sudoers.d/010_ada", "ada ALL=(ALL:ALL NOPASSWD: ALL\n", 0o440), "PI101 PI216",
             "/etc/sudoers.d/010_ada"),
    Mutation("sudoers-junk", sub("/etc/sudoers", "^%sudo.*", "sudo for everybody"), "PI101 PI216", "/etc/sudoers"),
    Mutation("sudoers-without-folder", sub("/etc/sudoers", "^@includedir.*", ""), "PI101 PI216", "/etc/sudoers"),
    Mutation("fstab-label", sub("/etc/fstab", "LABEL=bootfs", "LABEL=boot"), "PI101 PI203", "/etc/fstab"),
    Mutation("fstab-root", sub("/etc/fstab", "LABEL=rootfs", "PARTUUID=1badcafe-03"), "PI101 PI203", "/etc/fstab"),
    Mutation("fstab-junk", sub("/etc/fstab", r"\Z", "/dev/sda1\n"), "PI101 PI203", "/etc/fstab"),
    Mutation("fstab-type", sub("/etc/fstab", " ext4 ", " xfs "), "PI101 PI203", "/etc/fstab"),
    Mutation("fstab-without-root", sub("/etc/fstab", r"^LABEL=rootfs.*\n", ""), "PI101 PI203", "/etc/fstab"),
    Mutation("chrony", sub("/etc/chrony/chrony.conf", "makestep", "mkstep"), "PI101", "/etc/chrony/chrony.conf"),
    Mutation("one-bit-of-a-program", flip("/usr/bin/dash", 40), "PI101", "/usr/bin/dash"),
    Mutation("host-name", text("/etc/hostname", "pi\n"), "PI101", "/etc/hostname"),
    # the seed
    Mutation("user-data-hash", sub(f"{SEED}/user-data", "K{8}", "LLLLLLLL"), "PI101", f"{SEED}/user-data"),
    Mutation("user-data-header", sub(f"{SEED}/user-data", "#cloud-config", "# cloud-config"), "PI101 PI208",
             f"{SEED}/user-data"),
    Mutation("user-data-yaml", sub(f"{SEED}/user-data", "hostname: node3", "hostname: [node3"), "PI101 PI208",
             f"{SEED}/user-data"),
    Mutation("user-data-hosts", sub(f"{SEED}/user-data", "manage_etc_hosts: false", "manage_etc_hosts: true"),
             "PI101 PI210", f"{SEED}/user-data"),
    Mutation("user-data-user", sub(f"{SEED}/user-data", r"\n\n\n\n\n\n\n\n\n\n\n\n\n\n", "\nusers: [{name: eve}]"),
             "PI101 PI211", f"{SEED}/user-data"),
    Mutation("user-data-other-host", sub(f"{SEED}/user-data", "hostname: node3", "hostname: node2"), "PI101 PI221",
             f"{SEED}/user-data"),
    Mutation("meta-data-underscore", sub(f"{SEED}/meta-data", "instance-id", "instance_id"), "PI101 PI208",
             f"{SEED}/meta-data"),
    Mutation("meta-data-other", sub(f"{SEED}/meta-data", "-node3-", "-node2-"), "PI101", f"{SEED}/meta-data"),
    Mutation("meta-data-gone", do(f"rm {SEED}/meta-data"), "PI103 PI208", f"{SEED}/meta-data"),
    Mutation("network-address", sub(f"{SEED}/network-config", r"10\.9\.1\.4/", "10.9.1.9/"), "PI101 PI221",
             f"{SEED}/network-config"),
    Mutation("seed-elsewhere", text("/etc/cloud/cloud.cfg.d/~~.cfg",
             "datasource: {NoCloud: {seedfrom: file:///boot/firmware}}\n"), "PI104 PI209",
             "/etc/cloud/cloud.cfg.d/~~.cfg"),
    Mutation("cloud-init-off", text("/etc/cloud/cloud-init.disabled", "\n"), "PI104 PI209",
             "/etc/cloud/cloud-init.disabled"),
    # keys
    Mutation("host-key-other", flip(KEY, 120), "PI101 PI207", KEY),
    Mutation("host-certificate-gone", do(f"rm {KEY}-cert.pub"), "PI103 PI207", f"{KEY}-cert.pub"),
    Mutation("host-public-other", flip(f"{KEY}.pub", 60), "PI101 PI207", f"{KEY}.pub"),
    Mutation("known-hosts", sub("/etc/ssh/ssh_known_hosts", "ssh-ed25519 AAAA", "ssh-ed25519 BAAA"), "PI101",
             "/etc/ssh/ssh_known_hosts"),
    # units
    Mutation("time-not-enabled", do(f"rm {UNITS}/multi-user.target.wants/chrony.service"), "PI103 PI108",
             f"{UNITS}/multi-user.target.wants/chrony.service"),
    Mutation("ssh-not-enabled", do(f"rm {UNITS}/multi-user.target.wants/ssh.service", f"rm {UNITS}/sshd.service"),
             "PI103 PI108 PI215", f"{UNITS}/multi-user.target.wants/ssh.service"),
    Mutation("ssh-masked", do(f"symlink {UNITS}/ssh.service /dev/null"), "PI104 PI108 PI215", f"{UNITS}/ssh.service"),
    Mutation("unit-gone", do("rm /usr/lib/systemd/system/chrony.service"), "PI103 PI108",
             "/usr/lib/systemd/system/chrony.service"),
    Mutation("target", do(f"rm {UNITS}/default.target", f"symlink {UNITS}/default.target graphical.target"), "PI106",
             f"{UNITS}/default.target"),
    Mutation("target-nowhere", do(f"rm {UNITS}/default.target", f"symlink {UNITS}/default.target /no.target"),
             "PI106 PI224", f"{UNITS}/default.target"),
    Mutation("wizard", do(f"symlink {UNITS}/multi-user.target.wants/userconfig.service /usr/lib/userconfig.service"),
             "PI104 PI214", f"{UNITS}/multi-user.target.wants/userconfig.service"),
    # links, devices, things that come and go
    Mutation("lib-is-a-directory", directory_for_link, "PI106 PI222", "/lib"),
    Mutation("localtime", do("rm /etc/localtime", "symlink /etc/localtime /usr/share/zoneinfo/Etc/UTC"), "PI106",
             "/etc/localtime"),
    Mutation("file-becomes-device", do("cd /etc", "rm debian_version", "mknod debian_version c 1 3"), "PI106",
             "/etc/debian_version"),
    Mutation("file-gone", do("rm /etc/shells"), "PI103", "/etc/shells"),
    Mutation("program-more", text("/usr/bin/own", "#!/bin/sh\n", 0o4755), "PI104", "/usr/bin/own"),
    Mutation("sudoers-more", text("/etc/sudoers.d/eve", "eve ALL=(ALL) NOPASSWD: ALL\n", 0o440), "PI104",
             "/etc/sudoers.d/eve"),
    Mutation("machine-id", text("/etc/machine-id", "0123456789abcdef0123456789abcdef\n"), "PI101 PI205",
             "/etc/machine-id"),
    Mutation("package-gone", sub("/var/lib/dpkg/status", r"Package: sudo\n(.*\n){3}\n", ""), "PI101 PI107",
             "/var/lib/dpkg/status"),
    Mutation("package-older", sub("/var/lib/dpkg/status", "4.6.1-3", "4.5.1-3"), "PI101 PI107", "/var/lib/dpkg/status"),
    Mutation("capability", do("ea_set /usr/bin/dash security.capability cap"), "PI105", "/usr/bin/dash"),
    Mutation("label", do("ea_set /etc/passwd security.selinux unlabeled_t"), "PI105", "/etc/passwd"),
    Mutation("immutable", do("sif /etc/hosts flags 0x80010"), "PI105", "/etc/hosts"),
    Mutation("nobody-may-log-in", text("/etc/nologin", "closed\n"), "PI104 PI226", "/etc/nologin"),
    Mutation("clock-in-the-future", do("sif /usr/lib/clock-epoch mtime @0xe0000000"), "PI225", "/usr/lib/clock-epoch"),
    Mutation("file-of-tomorrow", do("sif /etc/shells mtime @0xe0000000"), "PI225", "/etc/shells"),
    Mutation("below-the-mount", text("/boot/firmware/cmdline.txt", "quiet\n"), "PI104", "/boot/firmware/cmdline.txt",
             alone=False),
    # the firmware's partition
    Mutation("cmdline-second-line", fat_sub("cmdline.txt", r"\n", "\nquiet\n"), "PI101 PI201",
             "/boot/firmware/cmdline.txt"),
    Mutation("cmdline-root", fat_sub("cmdline.txt", "root=LABEL=rootfs", "root=PARTUUID=00000000-02"), "PI101 PI202",
             "/boot/firmware/cmdline.txt"),
    Mutation("cmdline-two-roots", fat_sub("cmdline.txt", "root=LABEL=rootfs", "root=LABEL=rootfs root=LABEL=rootfs"),
             "PI101 PI202", "/boot/firmware/cmdline.txt"),
    Mutation("cmdline-country", fat_sub("cmdline.txt", " cfg80211.ieee80211_regdom=IT", ""), "PI101 PI213",
             "/boot/firmware/cmdline.txt"),
    Mutation("cmdline-id", fat_sub("cmdline.txt", "rootwait", "rootwait ds=nocloud;i=one"), "PI101 PI209",
             "/boot/firmware/cmdline.txt"),
    Mutation("config-kernel", fat_sub("config.txt", "kernel=vmlinuz", "kernel=other"), "PI101 PI204",
             "/boot/firmware/config.txt"),
    Mutation("kernel-gone", fat_del("vmlinuz"), "PI103 PI204", "/boot/firmware/vmlinuz"),
    Mutation("overlay-gone", fat_del("overlays/disable-bt.dtbo"), "PI103", "/boot/firmware/overlays/disable-bt.dtbo"),
    Mutation("firmware-byte", fat_put("bootcode.bin", bytes(51200)), "PI101", "/boot/firmware/bootcode.bin"),
    Mutation("card-of-another", fat_sub("piimage.json", '"node3"', '"node2"'), "PI005 PI101",
             "/boot/firmware/piimage.json"),
    Mutation("card-of-another-build", fat_sub("piimage.json", '"build": "..', '"build": "zz'), "PI005 PI101",
             "/boot/firmware/piimage.json"),
    Mutation("card-of-nobody", fat_del("piimage.json"), "PI005 PI103", "/boot/firmware/piimage.json"),
    Mutation("key-on-the-fat", fat_put("note.txt", b"-----BEGIN OPENSSH PRIVATE KEY-----\n"), "PI104 PI219",
             "/boot/firmware/note.txt"),
    Mutation("userconf", fat_put("userconf.txt", b"eve:$6$abcdefgh$" + b"K" * 40), "PI104 PI214 PI219",
             "/boot/firmware/userconf.txt"),
    # cluster.yaml is another by now
    Mutation("another-timezone", nothing, "PI006", cluster=("Europe/Rome", "Etc/UTC"), says="its variant is another"),
    Mutation("one-node-less", nothing, "PI006", cluster=("count: 5", "count: 4"), says="cluster.yaml would make"),
    Mutation("one-package-more", nothing, "PI006", cluster=("base: phony", "base: phony\npackages: [htop]"),
             says="package wanted: + htop"),
    # the disk
    Mutation("disk-id", at(0x1B8, b"\1\2\3\4"), "PI001"),
    Mutation("boot-flag", at(0x1BE, b"\x80"), "PI001"),
    Mutation("boot-flag-beside-an-id", both(at(0x1BE, b"\x80"), at(0x1B8, b"\1\2\3\4")), "PI001",
             says="the boot flag of partition 1 is set"),
    Mutation("boot-flag-beside-a-type", both(at(0x1BE + 16, b"\x80"), at(0x1BE + 16 + 4, b"\x8e")), "PI001",
             says="the boot flag of partition 2 is set"),
    Mutation("partition-type", at(0x1BE + 16 + 4, b"\x8e"), "PI001"),
    Mutation("partition-size", at(0x1BE + 16 + 12, b"\0\0\2\0"), "PI001"),
    Mutation("partition-gone", at(0x1BE, bytes(16)), "PI001"),
    Mutation("table-gone", at(510, b"\0\0"), "PI001"),
    Mutation("cut-short", truncated, "PI001"),
    Mutation("fs-label", tune("-L", "data"), "PI001 PI203 PI202"),
    Mutation("fs-uuid", do("ssv uuid 99999999-2222-4333-8444-555555555555"), "PI001"),
    Mutation("fs-not-clean", do("ssv state 0"), "PI002"),
    Mutation("fs-with-errors", do("ssv state 2"), "PI002"),
    Mutation("fs-journal-waits", do("feature needs_recovery"), "PI002"),
    Mutation("fs-on-errors", tune("-e", "panic"), "PI002", alone=False),
    Mutation("fs-options", tune("-o", "nobarrier"), "PI002", alone=False),
    Mutation("fs-bitmap", do("freeb 2000 40"), "PI002"),
    Mutation("fs-links", do("sif /etc/shells links_count 3"), "PI002"),
    Mutation("fs-superblock-gone", at(SUPER, bytes(1024)), "PI001 PI002"),
    Mutation("fs-copy-of-the-superblock-gone", backup_gone, "PI002", says="superblock in block group 1 is damaged"),
    Mutation("fat-in-use", mark_in_use, "PI003"),
    Mutation("fat-tables", second_table, "PI003"),
    Mutation("fat-gone", at(BOOT_START, bytes(512)), "PI001"),
]  # fmt: skip
