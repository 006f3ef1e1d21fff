"""Hand-made facts, clusters and secrets for tests of the pure middle."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

from piimage.cluster import Cluster, Node, Role, SecretRef, Sudo, Target, User, Wifi
from piimage.components.contribution import HostKey, Secrets
from piimage.facts import (
    Facts,
    FileFact,
    Filesystem,
    OsRelease,
    Partition,
    PartitionTable,
    Unit,
)

MIB = 1 << 20
MADE = 1_790_000_000
SYSTEM_PASSWD = """\
root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
systemd-network:x:998:998:systemd Network Management:/:/usr/sbin/nologin
sshd:x:993:65534:sshd user:/run/sshd:/usr/sbin/nologin
_chrony:x:102:105:Chrony daemon,,,:/var/lib/chrony:/usr/sbin/nologin
"""
SYSTEM_SHADOW = """\
root:*:20000:0:99999:7:::
daemon:*:20000:0:99999:7:::
nobody:*:20000:0:99999:7:::
systemd-network:!*:20000:::::1:
sshd:!*:20000:::::1:
_chrony:!:20000::::::
"""
GROUPS = {
    "root": 0,
    "daemon": 1,
    "adm": 4,
    "dialout": 20,
    "cdrom": 24,
    "sudo": 27,
    "audio": 29,
    "shadow": 42,
    "video": 44,
    "plugdev": 46,
    "games": 60,
    "users": 100,
    "nogroup": 65534,
    "systemd-journal": 999,
    "systemd-network": 998,
    "input": 996,
    "render": 992,
    "netdev": 106,
    "_chrony": 105,
}
CHRONY = """\
# stock
confdir /etc/chrony/conf.d
pool 2.debian.pool.ntp.org iburst
sourcedir /run/chrony-dhcp
keyfile /etc/chrony/chrony.keys
driftfile /var/lib/chrony/chrony.drift
makestep 1 3
rtcsync
"""
HOOK = """\
#!/bin/sh
cmdline_custom="/etc/default/raspi-extra-cmdline"
firmware_custom="/etc/default/raspi-firmware-custom"
"""
CMDLINE = (
    "console=tty0 console=ttyS1,115200 root=LABEL=RASPIROOT rw fsck.repair=yes"
    " net.ifnames=0 cma=64M rootwait \n"
)
PI_GROUPS = (
    "adm dialout cdrom sudo audio video plugdev games users input netdev gpio i2c spi render"
)


def text(content: str, mode: int = 0o644, gid: int = 0) -> FileFact:
    return FileFact(kind="file", mode=mode, uid=0, gid=gid, content=content.encode())


def folder(mode: int = 0o755) -> FileFact:
    return FileFact(kind="dir", mode=mode, uid=0, gid=0)


def link(target: str) -> FileFact:
    return FileFact(kind="link", mode=0o777, uid=0, gid=0, target=target)


def service(name: str, *, wanted_by: str = "multi-user.target", **more) -> Unit:
    return Unit(path=f"/usr/lib/systemd/system/{name}", wanted_by=(wanted_by,), **more)


def _group_text(members: dict[str, str] | None = None, extra: dict[str, int] | None = None) -> str:
    groups = {**GROUPS, **(extra or {})}
    return "".join(f"{n}:x:{g}:{(members or {}).get(n, '')}\n" for n, g in groups.items())


def _gshadow_text(
    members: dict[str, str] | None = None, extra: dict[str, int] | None = None
) -> str:
    groups = {**GROUPS, **(extra or {})}
    return "".join(f"{n}:*::{(members or {}).get(n, '')}\n" for n in groups)


def _folders(*paths: str) -> dict[str, FileFact]:
    found = {}
    for path in paths:
        parts = path.split("/")[1:]
        for depth in range(1, len(parts) + 1):
            found["/" + "/".join(parts[:depth])] = folder()
    return found


def _files() -> dict[str, FileFact]:
    return {
        **_folders(
            "/etc/chrony/conf.d",
            "/etc/cloud/cloud.cfg.d",
            "/etc/console-setup",
            "/etc/default",
            "/etc/skel",
            "/etc/ssh/sshd_config.d",
            "/etc/sudoers.d",
            "/etc/systemd/system/multi-user.target.wants",
            "/etc/udev/rules.d",
            "/var/lib/systemd",
            "/usr/lib/systemd/system",
            "/boot/firmware",
            "/home",
        ),
        "/etc/passwd": text(SYSTEM_PASSWD),
        "/etc/shadow": text(SYSTEM_SHADOW, 0o640, 42),
        "/etc/group": text(_group_text()),
        "/etc/gshadow": text(_gshadow_text(), 0o640, 42),
        "/etc/subuid": text(""),
        "/etc/subgid": text(""),
        "/etc/shells": text("# valid shells\n/bin/sh\n/bin/bash\n/usr/bin/bash\n"),
        "/etc/skel/.bashrc": text("# bash\n"),
        "/etc/skel/.profile": text("# sh\n"),
        "/etc/sudoers": text("root ALL=(ALL:ALL) ALL\n%sudo ALL=(ALL:ALL) ALL\n", 0o440),
        "/etc/machine-id": text("uninitialized\n", 0o444),
        "/etc/hostname": text("debian\n"),
        "/etc/hosts": text("127.0.0.1 localhost\n"),
        "/etc/fstab": text(
            "LABEL=RASPIROOT / ext4 rw 0 1\nLABEL=RASPIFIRM /boot/firmware vfat rw 0 2\n"
        ),
        "/etc/localtime": link("/usr/share/zoneinfo/Etc/UTC"),
        "/etc/locale.conf": text("LANG=C.UTF-8\n"),
        "/etc/default/locale": link("../locale.conf"),
        "/etc/locale.gen": text("# it_IT.UTF-8 UTF-8\n# de_DE.UTF-8 UTF-8\n"),
        "/etc/default/keyboard": text('XKBMODEL="pc105"\nXKBLAYOUT="us"\nXKBVARIANT=""\n'),
        "/etc/vconsole.conf": link("default/keyboard"),
        "/etc/console-setup/cached_setup_keyboard.sh": text("#!/bin/sh\n", 0o755),
        "/etc/ssh/sshd_config": text("Include /etc/ssh/sshd_config.d/*.conf\nUsePAM yes\n"),
        "/etc/ssh/ssh_config": text("Include /etc/ssh/ssh_config.d/*.conf\nHost *\n"),
        "/etc/chrony/chrony.conf": text(CHRONY),
        "/etc/default/chrony": text('# options\nDAEMON_OPTS="-F 1"\n'),
        "/etc/kernel/postinst.d/z50-raspi-firmware": text(HOOK, 0o755),
        "/etc/default/raspi-firmware": text("#CMA=64M\n"),
        "/boot/firmware/cmdline.txt": text(CMDLINE, 0o755),
        "/boot/firmware/config.txt": text("arm_64bit=1\n[pi4]\narm_boost=1\n", 0o755),
        "/etc/systemd/system/multi-user.target.wants/chrony.service": link(
            "/usr/lib/systemd/system/chrony.service"
        ),
    }


def _units() -> dict[str, Unit]:
    return {
        "ssh.service": service("ssh.service", alias=("sshd.service",)),
        "sshd-keygen.service": service("sshd-keygen.service", wanted_by="ssh.service"),
        "chrony.service": service("chrony.service", alias=("chronyd.service",), enabled=True),
        "systemd-networkd.service": service(
            "systemd-networkd.service", also=("systemd-networkd.socket",)
        ),
        "systemd-networkd.socket": service("systemd-networkd.socket", wanted_by="sockets.target"),
        "systemd-networkd-wait-online.service": service(
            "systemd-networkd-wait-online.service", wanted_by="network-online.target"
        ),
        "systemd-firstboot.service": Unit(path="/usr/lib/systemd/system/systemd-firstboot.service"),
        "getty@.service": service("getty@.service", wanted_by="getty.target"),
    }


def _table() -> PartitionTable:
    return PartitionTable(
        label="dos",
        disk_id="1a2b3c4d",
        sector_size=512,
        size=1600 * MIB,
        partitions=(
            Partition(
                number=1,
                start=4 * MIB,
                size=508 * MIB,
                type="0c",
                filesystem=Filesystem(type="vfat", label="RASPIFIRM", uuid="1234-ABCD"),
            ),
            Partition(
                number=2,
                start=512 * MIB,
                size=1088 * MIB,
                type="83",
                filesystem=Filesystem(type="ext4", label="RASPIROOT", uuid="0-1"),
            ),
        ),
    )


def debian() -> Facts:
    """A base like ours: Debian 13, netplan with networkd, cloud-init, chrony, no user."""
    return Facts(
        image_id="d" * 64,
        os=OsRelease(
            id="debian", version_id="13", codename="trixie", pretty="Debian GNU/Linux 13 (trixie)"
        ),
        architecture="arm64",
        table=_table(),
        mounts={"/": 2, "/boot/firmware": 1},
        firmware="/boot/firmware",
        files=_files(),
        units=_units(),
        packages={
            "openssh-server": "1:10.0p1-7",
            "cloud-init": "25.1.4-1+deb13u1",
            "netplan.io": "1.1.2-7",
            "chrony": "4.6.1-3",
            "sudo": "1.9.16p2-3",
            "raspi-firmware": "1.20240424+ds-6",
            "locales": "2.41-12",
            "xauth": "1:1.1.2-1.1",
        },
        network_stack="netplan-networkd",
        locales=frozenset({"C.utf8", "POSIX"}),
        timezones=frozenset({"UTC", "Etc/UTC", "Europe/Rome", "America/New_York"}),
        cloud_init="25.1.4",
        made=MADE,
    )


def raspios() -> Facts:
    """A base like Raspberry Pi OS: `pi` with uid 1000, sudoers, autologin and the wizard."""
    base = debian()
    extra = {"pi": 1000, "gpio": 986, "i2c": 988, "spi": 987, "rpi-first-boot-wizard": 110}
    members = dict.fromkeys(PI_GROUPS.split(), "pi")
    wizard = "rpi-first-boot-wizard:x:110:110::/home/rpi-first-boot-wizard:/bin/bash\n"
    system = "/etc/systemd/system"
    files = {
        **base.files,
        **_folders("/etc/lightdm", f"{system}/getty@tty1.service.d", "/home/pi"),
        "/etc/passwd": text(SYSTEM_PASSWD + "pi:x:1000:1000:,,,:/home/pi:/bin/bash\n" + wizard),
        "/etc/shadow": text(
            SYSTEM_SHADOW
            + "pi:$6$stock$hash:20000:0:99999:7:::\nrpi-first-boot-wizard::20000:0:99999:7:::\n",
            0o640,
            42,
        ),
        "/etc/group": text(_group_text(members, extra)),
        "/etc/gshadow": text(_gshadow_text(members, extra), 0o640, 42),
        "/etc/subuid": text("pi:100000:65536\n"),
        "/etc/subgid": text("pi:100000:65536\n"),
        "/etc/sudoers.d/010_pi-nopasswd": text("pi ALL=(ALL) NOPASSWD: ALL\n", 0o440),
        "/etc/sudoers.d/010_at-export": text('Defaults env_keep += "NO_AT_BRIDGE"\n', 0o440),
        "/etc/sudoers.d/010_wiz-nopasswd": text(
            "rpi-first-boot-wizard ALL=(ALL) NOPASSWD: ALL\n", 0o440
        ),
        "/etc/lightdm/lightdm.conf": text("[Seat:*]\nautologin-user=pi\nautologin-session=x\n"),
        f"{system}/getty@tty1.service.d/autologin.conf": text(
            "[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin pi --noclear %I $TERM\n"
        ),
        f"{system}/multi-user.target.wants/userconfig.service": link(
            "/usr/lib/systemd/system/userconfig.service"
        ),
        "/etc/ssh/sshd_config.d/rename_user.conf": text("Banner /usr/share/userconf-pi/banner\n"),
        "/boot/firmware/userconf.txt": text("pi:$6$stock$hash\n", 0o755),
    }
    units = {
        **base.units,
        "userconfig.service": service("userconfig.service"),
        "lightdm.service": service("lightdm.service", alias=("display-manager.service",)),
    }
    return replace(base, files=files, units=units, rpi_issue="Raspberry Pi reference 2025-12-04")


def with_nfs(facts: Facts | None = None) -> Facts:
    """A base (`debian()`) with nfs-kernel-server and nfs-common."""
    base = facts or debian()
    names = ("nfs-server.service", "nfs-client.target", "rpcbind.service", "nfs-blkmap.service")
    static = ("rpc-statd.service", "rpc-statd-notify.service")
    units = {
        **{name: service(name, enabled=True) for name in names},
        **{name: Unit(path=f"/usr/lib/systemd/system/{name}") for name in static},
        "rpcbind.socket": service("rpcbind.socket", wanted_by="sockets.target", enabled=True),
    }
    with_conf = with_files(base, {"/etc/nfs.conf": text("[nfsd]\n# vers3=y\n")})
    return replace(with_conf, units={**base.units, **units})


def with_files(facts: Facts, files: dict[str, FileFact]) -> Facts:
    return replace(facts, files={**facts.files, **files})


def user(name: str = "federico", uid: int = 1000, **more) -> User:
    values = {"gid": uid, "group": name, "home": f"/home/{name}", **more}
    return User(name=name, uid=uid, **values)


HEAD = Role(name="head", head=True, base="debian-13")
WORKER = Role(name="worker", head=False, base="debian-13", wifi=False)
#: A wire with a way out; without Wi-Fi.
OUTWARD: dict[str, Any] = {
    "gateway": IPv4Address("10.1.10.1"),
    "dns": (IPv4Address("10.1.10.1"), IPv4Address("9.9.9.9")),
}
WIFI = Wifi(ssid="lab", country="IT", psk=SecretRef("env", "PI_WIFI_PSK"))


def cluster(*, count: int = 3, head: Role = HEAD, worker: Role = WORKER, **more) -> Cluster:
    nodes = tuple(
        Node(
            number=number,
            name=f"node{number}",
            role=worker if number else head,
            address=IPv4Interface(f"10.1.10.{240 + number}/24")
            if count < 15
            else IPv4Interface(f"10.1.{10 + number // 250}.{1 + number % 250}/16"),
        )
        for number in range(count)
    )
    values = {
        "users": (
            user(rename_from="auto", sudo=Sudo.NOPASSWD, groups=("video", "gpio")),
            user("ops", 1001, sudo=Sudo.PASSWORD),
        ),
        "root_password": None,
        "subnet": IPv4Network("10.1.10.0/24"),
        "timezone": "Europe/Rome",
        "locale": "C.UTF-8",
        "keymap": "it",
        "ntp_servers": ("pool.ntp.org",),
        "wifi": WIFI,
        **more,
    }
    return Cluster(
        name="pico5", directory=Path("/x"), source=Path("/x/cluster.yaml"), nodes=nodes, **values
    )


PRIVATE = b"-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\n"
PSK = "0123456789abcdef" * 4
HASH = "$y$j9T$salt$madeUpHashThatIsNoRealOne"


def secrets(cluster: Cluster, **more) -> Secrets:
    values = {
        "host_keys": {
            node.name: HostKey(
                private=PRIVATE + node.name.encode() + b"\n",
                public=f"ssh-ed25519 AAAAC3public{node.name} {node.name}",
                certificate=f"ssh-ed25519-cert-v01@openssh.com AAAAcert{node.name} {node.name}",
            )
            for node in cluster.nodes
        },
        "ca_public": "ssh-ed25519 AAAAC3ca ca",
        "cluster_public": "ssh-ed25519 AAAAC3cluster pico5",
        "cluster_private": b"cluster private",
        "passwords": {"federico": HASH},
        "psk": PSK,
        "authorized_keys": {"federico": ("ssh-ed25519 AAAAC3fed fed",)},
        **more,
    }
    return Secrets(**values)


DESKTOP = replace(HEAD, target=Target.GRAPHICAL)
