"""A small real image, made in about a second: MBR, FAT32 firmware partition, ext4 root.

No root, loop device or mount: mke2fs and mkfs.vfat work on the image at an offset, mtools fills the
FAT, and debugfs sets owners, since `mke2fs -d` copies the caller's.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MIB = 1 << 20
BOOT_START = 4 * MIB
BOOT_SIZE = 36 * MIB
ROOT_START = BOOT_START + BOOT_SIZE
#: For images that are read, packed and hashed whole: FAT32 is never small.
SMALL_BOOT_SIZE = 4 * MIB
SMALL_ROOT_START = BOOT_START + SMALL_BOOT_SIZE
#: The latest time of any file, where mke2fs knows of it (1.47.1 and newer).
SOURCE_DATE_EPOCH = 1577836800
DISK_ID = "1badcafe"
SEED = "/var/lib/cloud/seed/nocloud"
SLOTS = {f"{SEED}/user-data": 16384, f"{SEED}/meta-data": 4096, f"{SEED}/network-config": 8192}
ROOT_UUID = "11111111-2222-4333-8444-555555555555"


@dataclass(frozen=True)
class Node:
    """A file (`data` is bytes), link (`str`) or directory (None) of the root file system."""

    data: bytes | str | None
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


def _file(text: str, mode: int = 0o644, gid: int = 0) -> Node:
    return Node(text.encode(), mode, 0, gid)


def _unit(description: str, wanted_by: str) -> Node:
    return _file(
        f"[Unit]\nDescription={description}\n\n[Service]\nExecStart=/usr/sbin/{description}\n\n"
        f"[Install]\nWantedBy={wanted_by}\n"
    )


def _status(*packages: tuple[str, str]) -> Node:
    return _file(
        "\n".join(
            f"Package: {name}\nStatus: install ok installed\n"
            f"Architecture: arm64\nVersion: {version}\n"
            for name, version in packages
        )
    )


#: The ELF header of an arm64 program (e_machine 183).
ARM64 = b"\x7fELF\2\1\1" + bytes(9) + b"\3\0\xb7\0\1\0\0\0" + bytes(40)

#: A Debian 13 as piimage's components expect to find it, without its programs.
ROOT: dict[str, Node] = {
    "/bin": Node("usr/bin"),
    "/lib": Node("usr/lib"),
    "/usr/bin/dash": Node(ARM64, 0o755),
    "/usr/bin/bash": Node(ARM64, 0o755),
    "/usr/bin/sh": Node("dash"),
    "/etc/os-release": Node("../usr/lib/os-release"),
    "/usr/lib/os-release": _file(
        'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nNAME="Debian GNU/Linux"\nVERSION_ID="13"\n'
        'VERSION="13 (trixie)"\nVERSION_CODENAME=trixie\nID=debian\n'
    ),
    "/etc/debian_version": _file("13.1\n"),
    "/etc/fstab": _file(
        "LABEL=rootfs / ext4 rw,errors=remount-ro 0 1\n"
        "LABEL=bootfs /boot/firmware vfat defaults 0 2\n"
    ),
    "/etc/hostname": _file("debian\n"),
    "/etc/hosts": _file("127.0.0.1\tlocalhost\n::1\t\tlocalhost ip6-localhost ip6-loopback\n"),
    "/etc/machine-id": _file("uninitialized\n", 0o444),
    "/etc/passwd": _file(
        "root:x:0:0:root:/root:/bin/bash\n"
        "daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
        "systemd-network:x:998:998:systemd Network Management:/:/usr/sbin/nologin\n"
        "_chrony:x:100:101:Chrony daemon,,,:/var/lib/chrony:/usr/sbin/nologin\n"
        "pi:x:1000:1000:,,,:/home/pi:/bin/bash\n"
    ),
    "/etc/shadow": _file(
        "root:*:20300:0:99999:7:::\ndaemon:*:20300:0:99999:7:::\nnobody:*:20300:0:99999:7:::\n"
        "systemd-network:!*:20300::::::\n_chrony:!:20300::::::\npi:!:20300:0:99999:7:::\n",
        0o640,
        gid=42,
    ),
    "/etc/group": _file(
        "root:x:0:\ndaemon:x:1:\nadm:x:4:pi\ntty:x:5:\nsudo:x:27:pi\nshadow:x:42:\naudio:x:29:pi\n"
        "video:x:44:pi\nplugdev:x:46:\nusers:x:100:\nnogroup:x:65534:\nnetdev:x:102:\n"
        "systemd-network:x:998:\n_chrony:x:101:\ngpio:x:997:\nrender:x:992:\npi:x:1000:\n"
    ),
    "/etc/gshadow": _file(
        "root:*::\ndaemon:*::\nadm:*::pi\ntty:*::\nsudo:*::pi\nshadow:*::\naudio:*::pi\nvideo:*::pi\n"
        "plugdev:*::\nusers:*::\nnogroup:*::\nnetdev:!::\nsystemd-network:!*::\n_chrony:!::\n"
        "gpio:!::\nrender:!::\npi:!::\n",
        0o640,
        gid=42,
    ),
    "/etc/subuid": _file("pi:100000:65536\n"),
    "/etc/subgid": _file("pi:100000:65536\n"),
    "/etc/sudoers": _file(
        "root\tALL=(ALL:ALL) ALL\n%sudo\tALL=(ALL:ALL) ALL\n@includedir /etc/sudoers.d\n", 0o440
    ),
    "/etc/sudoers.d": Node(None, 0o750),
    "/etc/shells": _file("/bin/sh\n/usr/bin/sh\n/bin/bash\n/usr/bin/bash\n"),
    "/etc/ssh/sshd_config": _file(
        "Include /etc/ssh/sshd_config.d/*.conf\nX11Forwarding yes\nUsePAM yes\n"
    ),
    "/etc/ssh/sshd_config.d": Node(None, 0o755),
    "/etc/ssh/ssh_config": _file("Include /etc/ssh/ssh_config.d/*.conf\nHost *\n"),
    "/etc/ssh/ssh_config.d": Node(None, 0o755),
    "/etc/chrony/chrony.conf": _file("pool 2.debian.pool.ntp.org iburst\nmakestep 1 3\n"),
    "/etc/cloud/cloud.cfg": _file("users:\n  - default\ndisable_root: true\n"),
    "/etc/cloud/cloud.cfg.d": Node(None, 0o755),
    "/etc/netplan": Node(None, 0o755),
    "/etc/default/locale": _file("LANG=C.UTF-8\n"),
    "/etc/default/keyboard": _file('XKBMODEL="pc105"\nXKBLAYOUT="us"\n'),
    "/etc/locale.gen": _file("# en_GB.UTF-8 UTF-8\n"),
    "/etc/timezone": _file("Etc/UTC\n"),
    "/etc/localtime": Node("/usr/share/zoneinfo/Etc/UTC"),
    "/usr/share/zoneinfo/Etc/UTC": Node(b"TZif2" + bytes(39)),
    "/usr/share/zoneinfo/Europe/Rome": Node(b"TZif2" + bytes(39)),
    "/etc/systemd/system/multi-user.target.wants/ssh.service": Node(
        "/usr/lib/systemd/system/ssh.service"
    ),
    "/etc/systemd/system/sshd.service": Node("/usr/lib/systemd/system/ssh.service"),
    "/usr/lib/systemd/system/default.target": Node("graphical.target"),
    "/usr/lib/systemd/system/multi-user.target": _file("[Unit]\nDescription=Multi-User System\n"),
    "/usr/lib/systemd/system/graphical.target": _file("[Unit]\nDescription=Graphical Interface\n"),
    "/usr/lib/systemd/system/ssh.service": _unit("sshd", "multi-user.target\nAlias=sshd.service"),
    "/usr/lib/systemd/system/chrony.service": _unit("chronyd", "multi-user.target"),
    "/usr/lib/systemd/system/systemd-networkd.service": _unit("networkd", "multi-user.target"),
    "/usr/lib/systemd/system/wpa_supplicant.service": _unit("wpa_supplicant", "multi-user.target"),
    "/var/lib/dpkg/status": _status(
        ("base-files", "13.8"),
        ("chrony", "4.6.1-3"),
        ("cloud-guest-utils", "0.33-1"),
        ("cloud-init", "25.1.4-1"),
        ("netplan.io", "1.1.2-7"),
        ("openssh-server", "1:10.0p1-7"),
        ("pssh", "2.3.5-2"),
        ("sudo", "1.9.16p2-3"),
        ("systemd", "257.8-1"),
        ("xauth", "1:1.1.2-1"),
    ),
    "/var/lib/cloud": Node(None, 0o755),
    SEED: Node(None, 0o700),
    **{path: Node(b"\n" * size, 0o600) for path, size in SLOTS.items()},
    "/home/pi": Node(None, 0o700, 1000, 1000),
    "/home/pi/.bashrc": Node(b"# ~/.bashrc\n", 0o644, 1000, 1000),
    "/root": Node(None, 0o700),
    "/boot/firmware": Node(None, 0o755),
    "/boot/vmlinuz-6.12.43+deb13-arm64": Node(b"kernel"),
    "/tmp": Node(None, 0o1777),
}

BOOT: dict[str, bytes] = {
    "config.txt": b"[all]\narm_64bit=1\nkernel=vmlinuz\ninitramfs initrd.img followkernel\n",
    "cmdline.txt": b"console=tty0 console=ttyS1,115200 root=LABEL=rootfs rw rootwait\n",
    "bootcode.bin": bytes(range(256)) * 200,
    "overlays/disable-bt.dtbo": b"\xd0\x0d\xfe\xed" + bytes(1000),
}


def make_phony(
    path: Path,
    *,
    boot_size: int = BOOT_SIZE,
    root_size: int = 96 * MIB,
    root: Mapping[str, Node | None] = {},
    boot: Mapping[str, bytes] = {},
    mke2fs: tuple[str, ...] = ("-t", "ext4"),
    gap: bytes = b"",
) -> Path:
    """Make the image at `path`; `root` and `boot` add to or replace the default files.

    None in `root` leaves a default file out, `mke2fs` are its options, `gap` lies after the MBR.
    """
    tree = {p: node for p, node in {**ROOT, **root}.items() if node is not None}
    with path.open("wb") as file:
        file.truncate(BOOT_START + boot_size + root_size)
        file.write(mbr(root_size, boot_size))
        file.write(gap)
    with tempfile.TemporaryDirectory() as scratch:
        _make_boot(path, {**BOOT, **boot}, Path(scratch, "boot"), boot_size)
        start = BOOT_START + boot_size
        _make_root(path, tree, Path(scratch, "root"), (start, root_size), mke2fs)
    return path


def mbr(root_size: int, boot_size: int = BOOT_SIZE) -> bytes:
    """The first sector: partition 1 FAT32 (0c), partition 2 Linux (83)."""
    entries = b"".join(
        bytes([0, 0xFE, 0xFF, 0xFF, kind, 0xFE, 0xFF, 0xFF])
        + (start // 512).to_bytes(4, "little")
        + (size // 512).to_bytes(4, "little")
        for kind, start, size in (
            (0x0C, BOOT_START, boot_size),
            (0x83, BOOT_START + boot_size, root_size),
        )
    )
    head = bytes(440) + bytes.fromhex(DISK_ID)[::-1] + bytes(2)
    return (head + entries).ljust(510, b"\0") + b"\x55\xaa"


def _make_boot(path: Path, files: Mapping[str, bytes], stage: Path, size: int) -> None:
    offset = ["--offset", str(BOOT_START // 512)]
    bits = "32" if size >= 36 * MIB else "16"  # FAT32 wants 65,525 clusters
    name = ["-F", bits, "-s", "1", "-n", "bootfs", "-i", "c0ffee01"]
    _tool("mkfs.vfat", *name, *offset, str(path), str(size // 1024))
    image = f"{path}@@{BOOT_START}"
    directories = {name.rpartition("/")[0]: None for name in files}
    for directory in sorted(directories.keys() - {""}):
        _tool("mmd", "-i", image, f"::/{directory}")
    for directory in directories:
        sources = [stage / name for name in files if name.rpartition("/")[0] == directory]
        (stage / directory).mkdir(parents=True, exist_ok=True)
        for source in sources:
            source.write_bytes(files[str(source.relative_to(stage))])
        _tool("mcopy", "-i", image, *map(str, sources), f"::/{directory}")


def _make_root(
    path: Path,
    tree: Mapping[str, Node],
    stage: Path,
    place: tuple[int, int],
    options: tuple[str, ...],
) -> None:
    """The ext4 at `place`, its start and size in bytes."""
    start, size = place
    stage.mkdir()
    for name, node in tree.items():
        file = stage / name.lstrip("/")
        if node.data is None:
            file.mkdir(parents=True, exist_ok=True)
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(node.data, str):
            file.symlink_to(node.data)
        else:
            file.write_bytes(node.data)
    extended = f"offset={start},root_owner=0:0,hash_seed={ROOT_UUID}"
    made = ["-F", "-q", *options, "-L", "rootfs", "-U", ROOT_UUID, "-E", extended]
    _tool("mke2fs", *made, "-d", str(stage), str(path), f"{size // 1024}k")
    _own(path, tree, stage, start)


def _own(path: Path, tree: Mapping[str, Node], stage: Path, start: int) -> None:
    """Give every inode its owner and mode."""
    kinds = {bytes: 0o100000, str: 0o120000, type(None): 0o040000}
    lines = []
    for place in sorted(stage.rglob("*")):
        name = "/" + str(place.relative_to(stage))
        if "\n" in name or '"' in name:
            continue  # debugfs cannot name it
        node = tree.get(name, Node(None, 0o755))
        mode = kinds[type(node.data)] | (0o777 if isinstance(node.data, str) else node.mode)
        for field, value in (("uid", node.uid), ("gid", node.gid), ("mode", f"0{mode:o}")):
            lines.append(f'sif "{name}" {field} {value}')
    script = "\n".join(lines).encode(errors="surrogateescape")
    _tool("debugfs", "-w", "-f", "-", f"{path}?offset={start}", stdin=script)


def _tool(*argv: str, stdin: bytes = b"") -> None:
    env = {
        **os.environ,
        "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
        "MTOOLS_SKIP_CHECK": "1",
        "SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH),
    }
    done = subprocess.run(argv, input=stdin, capture_output=True, env=env, check=False)
    if done.returncode:
        raise RuntimeError(f"{argv[0]}: {done.stderr.decode(errors='replace')}")
