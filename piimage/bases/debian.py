"""The default base: a Debian arm64 image that boots a Pi 3 or 4, made from the package archive alone.

Why these parts: Debian's kernel with raspi-firmware (Pi 3 and 4; the Pi 5's RP1 is not in Debian
13's kernel), cloud-init because it reads the node's seed, netplan over systemd-networkd because
cloud-init renders Wi-Fi only through netplan and networkd is there anyway, systemd-resolved for the
name servers of the Wi-Fi, chrony as time server and client.
"""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from piimage.bases import archive, namespace
from piimage.bases.foreign import refuse_foreign_programs
from piimage.bases.native import TREE_PATH, NativeTools, hook, native_tools
from piimage.disk.sparse import allocated_bytes
from piimage.errors import ToolFailedError
from piimage.run import run

if TYPE_CHECKING:
    from pathlib import Path

    from piimage.bases.cache import Cache
    from piimage.progress import Progress

MIB = 1 << 20
#: Partition 1 starts here, as on Raspberry Pi's own images: cards erase in 4 MiB.
FIRMWARE_START = 4 * MIB
FIRMWARE_SIZE = 512 * MIB
#: What the root file system has free beyond its content, for first boot before it is grown.
SPARE = 384 * MIB
COMPONENTS = "main,non-free-firmware"

PACKAGES = (
    # boot: kernel, the Pi's firmware and what the initramfs wants
    "linux-image-arm64", "raspi-firmware", "initramfs-tools", "zstd", "kmod", "udev",
    "firmware-brcm80211", "wireless-regdb",
    # a system one can log in to
    "systemd-sysv", "dbus", "libpam-systemd", "openssh-server", "sudo", "xauth", "less", "nano-tiny",
    "locales", "tzdata", "keyboard-configuration", "console-setup", "kbd", "ca-certificates",
    # network and time
    "netplan.io", "systemd-resolved", "wpasupplicant", "iw", "rfkill", "iproute2", "iputils-ping", "chrony",
    # first boot: the seed, growth of the root partition and its file system
    "cloud-init", "cloud-guest-utils", "fdisk", "e2fsprogs", "dosfstools",
)  # fmt: skip

#: Files that no package brings, in place before the kernel is configured.
FILES = {
    # Nothing that runs needs the firmware partition: a worn FAT must not stop a node nobody sits at.
    "etc/fstab": (
        "LABEL=RASPIROOT / ext4 rw,noatime 0 1\nLABEL=RASPIFIRM /boot/firmware vfat rw,nofail 0 2\n"
    ),
    "etc/hostname": "raspberrypi\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n",
    # The hook would look for the serial port on the machine that makes the image.
    "etc/default/raspi-firmware": ('ROOTPART=LABEL=RASPIROOT\nCONSOLES="tty0 ttyS1,115200"\n'),
}

#: Leaves nothing of the machine that made the tree, and no identity: machine-id(5), sshd's host
#: keys.
_FINISH = """
set -eu
cd "$1"
rm -f etc/ssh/ssh_host_* etc/resolv.conf var/lib/dbus/machine-id etc/.pwd.lock
rm -rf var/lib/apt/lists/* var/cache/apt/archives/*.deb tmp/* var/tmp/* run/*
ln -s ../run/systemd/resolve/stub-resolv.conf etc/resolv.conf
rm -f vmlinuz vmlinuz.old initrd.img initrd.img.old
echo uninitialized >etc/machine-id
chmod 444 etc/machine-id
find var/log -type f -delete
# All is configured: no first boot need rebuild the linker's cache and the like (systemd-update-done.service(8)).
touch etc/.updated var/.updated
mkdir -p ../firmware
mv boot/firmware/* ../firmware/
"""


@dataclass(frozen=True, slots=True)
class Tree:
    """A finished tree: `root` without the firmware partition's files, which are in `firmware`."""

    root: Path
    firmware: Path
    namespace: list[str]


def build_tree(suite: str, scratch: Path, *, cache: Cache, progress: Progress) -> Tree:
    """Make the tree of the image in `scratch`; raises `MissingToolError` or `ToolFailedError`.

    Needs root or user namespaces, see `piimage.bases.namespace`. Takes minutes: packages are
    installed under qemu-user with native tools in the guest's place, and the initramfs is generated
    once, at the end.
    """
    prefix = namespace.prefix()
    sources = archive.sources(suite, COMPONENTS)
    tools = native_tools(suite, sources, namespace=prefix, cache=cache, progress=progress)
    overlay = scratch / "overlay"
    for name, text in FILES.items():
        path = overlay / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    root = scratch / "root"
    with progress.step(f"installing Debian {suite} for arm64") as task:
        archive.mmdebstrap(
            [*prefix, "mmdebstrap", *_options(overlay, tools), suite, str(root), *sources],
            env={
                "QEMU_CPU": namespace.CPU,
                "INITRD": "No",
                **(tools.environment() if tools else {}),
            },
            log=scratch / "mmdebstrap.log",
            task=task,
        )
    with progress.step("taking out what belongs to this machine"):
        run([*prefix, "sh", "-c", _FINISH, "finish", root])
        packed = sorted((scratch / "firmware").glob("initrd.img-*"))
        if not packed:
            raise ToolFailedError("no initramfs was generated for the firmware partition")
        for initramfs in packed:
            refuse_foreign_programs(initramfs.name, initramfs.read_bytes())
    return Tree(root, scratch / "firmware", prefix)


def _options(overlay: Path, tools: NativeTools | None) -> list[str]:
    """The options of mmdebstrap for the tree, hooks in their order."""
    copy = f'cp -r --no-preserve=ownership {shlex.quote(str(overlay))}/. "$1"/'
    enter, swap, leave = (
        f'sh {shlex.quote(str(hook(n)))} "$1"' for n in ("enter", "swap", "leave")
    )
    path = TREE_PATH if tools else "/usr/sbin:/usr/bin:/sbin:/bin"
    initramfs = f'sh {shlex.quote(str(hook("initramfs")))} "$1"'
    if not tools:
        initramfs = 'chroot "$1" update-initramfs -c -k all'
    networkd = 'chroot "$1" systemctl enable systemd-networkd.service'
    options = [
        "--mode=root", "--architectures=arm64", "--variant=minbase", f"--components={COMPONENTS}", "--verbose",
        '--aptopt=APT::Install-Recommends "false"', f'--aptopt=DPkg::Path "{path}"',
        "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=force-unsafe-io", "--dpkgopt=force-confold",
        f"--include={','.join(PACKAGES)}",
    ]  # fmt: skip
    if tools:
        options += [f"--extract-hook={enter}", f"--essential-hook={swap}"]
    options += [f"--essential-hook={copy}"]
    if tools:
        options += [f"--customize-hook={swap}"]
    # Else each first boot compiles the keymap, twice (keyboard-setup.service, console-setup.service).
    keymap = 'chroot "$1" setupcon --save-only'
    options += [f"--customize-hook={each}" for each in (initramfs, networkd, keymap)]
    if tools:
        options += [f"--customize-hook={leave}"]
    return options


def build_image(tree: Tree, image: Path, *, progress: Progress) -> None:
    """Write partition table and both file systems of `tree` to the new file `image`, without loop devices."""
    used = int(run([*tree.namespace, "du", "-sxB1", "--apparent-size", tree.root]).text.split()[0])
    root_start = FIRMWARE_START + FIRMWARE_SIZE
    root_size = -(-(used * 11 // 10 + SPARE) // (4 * MIB)) * 4 * MIB
    identity = hashlib.sha256(
        run([*tree.namespace, "cat", tree.root / "var/lib/dpkg/status"]).stdout
    )
    with image.open("wb") as file:
        file.truncate(root_start + root_size)
    with progress.step("writing the partition table"):
        script = (
            f"label: dos\nlabel-id: 0x{identity.hexdigest()[:8]}\nunit: sectors\n"
            f"start={FIRMWARE_START // 512}, size={FIRMWARE_SIZE // 512}, type=c\n"
            f"start={root_start // 512}, size={root_size // 512}, type=83\n"
        )
        run(["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", image], stdin=script.encode())
    with progress.step("writing the firmware partition"):
        run(
            ["mkfs.vfat", "-F", "32", "-n", "RASPIFIRM", "-i", identity.hexdigest()[8:16],
             f"--offset={FIRMWARE_START // 512}", image, str(FIRMWARE_SIZE // 1024)]
        )  # fmt: skip
        names = sorted(tree.firmware.iterdir())
        run(["mcopy", "-s", "-p", "-m", "-i", f"{image}@@{FIRMWARE_START}", *names, "::/"])
    with progress.step("writing the root file system"):
        run(
            [*tree.namespace, "mke2fs", "-q", "-t", "ext4", "-L", "RASPIROOT", "-O", "^orphan_file,^metadata_csum_seed",
             "-E", f"offset={root_start},root_owner=0:0", "-d", tree.root, image, f"{root_size // 1024}k"]
        )  # fmt: skip
        progress.say(f"the image takes {allocated_bytes(image) // MIB} MiB on disk")
