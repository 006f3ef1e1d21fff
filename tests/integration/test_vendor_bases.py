"""A cluster's head over images laid out like the vendors': built by the command, read back by other tools.

Ids, dates and names are others than in the unit tests: what the code finds there it must have read.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import over_vendor
import pytest
import yaml
from fixtures import debian_raspi, raspios, ubuntu
from fixtures.card import text
from fixtures.facts_of import facts_of
from fixtures.reading import Reading
from over_vendor import PSK
from typer.testing import CliRunner

from piimage.bases.facts_reader import read_facts
from piimage.cli.main import app

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fixtures.card import Card

HASH = "$6$abcdefgh$" + "K" * 86
SEED = "/var/lib/cloud/seed/nocloud"
PROFILES = "/etc/NetworkManager/system-connections"
UNITS = "/etc/systemd/system"
YAML = """\
version: 1
name: vendors
base: vendor
timezone: Europe/Rome
users:
  - {name: ada, uid: 1000, rename_from: auto, sudo: nopasswd, password: {hash: "HASH"}}
  - {name: ops, uid: 1001}
network:
  wired: {subnet: 10.77.0.0/16, first: 10.77.3.1}
  wifi: {ssid: "Lab 2", country: NO, psk: "env:LAB_PSK"}
shares: [{path: /srv/work, server: head}]
mpi: {flavour: openmpi, slots: 4}
nodes: {count: 3, name: "n{n}", head: 0}
"""


def odd(card: Card, *, user: str | None = None, **layout) -> Card:
    """The same layout with more root and something of a user's own in the home."""
    root = dict(card.root)
    if user:
        root[f"/home/{user}/.config/deep/file"] = text("kept\n", 0o640, 1000, 1000)
        root[f"/home/{user}/.Xauthority"] = text("cookie", 0o600, 1000, 1000)
        root[f"/home/{user}/.config"] = replace(root[f"/home/{user}"])
        root[f"/home/{user}/.config/deep"] = replace(root[f"/home/{user}"])
    return replace(card, root=root, layout=replace(card.layout, **layout))


def choice(*more, **named):
    return raspios.Choice(*more, **named)


CARDS = {
    "trixie": odd(
        raspios.trixie(choice(date="2026-04-13", disk_id="00c0ffee", user="rosa")),
        user="rosa",
        root_size=64 << 20,
    ),
    "bookworm": odd(
        raspios.bookworm(choice("arm64", "desktop", "2024-11-19", "deadbeef")),
        user="pi",
        root_size=80 << 20,
    ),
    "bullseye": odd(
        raspios.bullseye(choice("arm64", "desktop", "2024-10-22", "badc0de5")), user="pi"
    ),
    "buster": odd(
        raspios.buster(choice("armhf", date="2021-05-07", disk_id="3a2b1c0d", user="carla")),
        user="carla",
        root_size=52 << 20,
    ),
    "noble": odd(ubuntu.noble(), disk_id="12345678"),
    "resolute": odd(ubuntu.resolute(), root_size=56 << 20),
    "raspi": odd(
        debian_raspi.bookworm(debian_raspi.Choice(date="20231109", disk_id="0d15ea5e")),
        root_size=60 << 20,
    ),
}
RASPIOS = [pytest.param(name, id=name) for name in ("trixie", "bookworm", "bullseye", "buster")]
WITH_NETWORK_MANAGER, WITH_DHCPCD = RASPIOS[:2], RASPIOS[2:]
#: With the wizard, since 2022-04.
ASKING = RASPIOS[:3]
ALL = list(CARDS)


@dataclass(frozen=True)
class Built:
    card: Card
    base: Path
    node: Reading


if TYPE_CHECKING:
    Of = Callable[[str], Built]


@pytest.fixture(scope="module", params=ALL)
def every(request, tmp_path_factory) -> Built:
    return _built(request.param, tmp_path_factory)


@pytest.fixture(scope="module")
def of(tmp_path_factory) -> Of:
    return lambda name: _built(name, tmp_path_factory)


_KNOWN: dict[str, Built] = {}


def _built(name: str, tmp_path_factory) -> Built:
    """The card's image imported as a base, and node 0 built over it, once."""
    if name not in _KNOWN:
        home = tmp_path_factory.mktemp(name)
        image = over_vendor.build(home, CARDS[name], YAML.replace("HASH", HASH))
        made = home / "dist/vendors/n0.img"
        _KNOWN[name] = Built(CARDS[name], image, Reading(made, home))
    return _KNOWN[name]


@pytest.mark.parametrize("name", CARDS)
def test_the_facts_of_the_card_are_those_of_its_image(name, tmp_path):
    card = CARDS[name]
    found = read_facts(card.write(tmp_path / "card.img"), image_id="c" * 64)
    expected = facts_of(card)

    assert replace(found, table=expected.table) == expected
    assert found.table.disk_id == card.layout.disk_id
    assert [p.start for p in found.table.partitions] == [p.start for p in expected.table.partitions]


def test_nothing_is_wrong_with_the_card(every: Built, monkeypatch):
    home = every.node.path.parents[2]
    monkeypatch.chdir(home)
    monkeypatch.setenv("PIIMAGE_CACHE", str(home / "cache"))
    monkeypatch.setenv("LAB_PSK", PSK)

    said = CliRunner().invoke(app, ["verify", "dist/vendors", "--json", "--quiet"])

    (verdict,) = json.loads(said.stdout)
    told = {(f["rule"], f["path"]) for f in verdict["findings"]}
    without_kernel = (
        {("PI204", "/boot/firmware/config.txt")} if "ubuntu" in every.card.name else set()
    )
    assert (verdict["name"], told, verdict["notes"]) == ("n0", without_kernel, [])


def test_both_file_systems_are_clean_and_where_they_were(every: Built):
    every.node.check()
    layout = every.card.layout

    assert every.node.starts == (layout.boot_start, layout.root_start)


def test_nothing_was_written_below_the_fats_mount_point(every: Built):
    old = "/boot/firmware" not in every.card.root
    assert every.node.names("/boot" if old else "/boot/firmware") == set()


def test_decoys_are_as_they_were(every: Built):
    for path, node in every.card.root.items():
        if path.startswith("/boot/") and isinstance(node.data, bytes):
            assert every.node.text(path).rstrip("\n") == node.data.decode().rstrip("\n")
    if "current/cmdline.txt" in every.card.boot:
        assert every.node.fat("cmdline.txt").encode() == every.card.boot["cmdline.txt"]


def test_the_command_line_in_force_has_the_country_and_all_it_had(every: Built):
    name = "current/cmdline.txt" if "current/cmdline.txt" in every.card.boot else "cmdline.txt"
    line = every.node.fat(name)

    assert line.count("\n") == 1
    assert line.split() == [
        *every.card.boot[name].decode().split(), "cfg80211.ieee80211_regdom=NO",
    ]  # fmt: skip


def test_partuuids_still_lead_to_the_partitions(every: Built):
    fstab = every.node.text("/etc/fstab")
    named = re.findall(r"PARTUUID=(\w+)-", fstab)

    assert every.node.text("/etc/fstab") == every.card.root["/etc/fstab"].content.decode()
    if named:
        assert set(named) == {every.node.disk_id}
    else:
        assert every.node.disk_id != every.card.layout.disk_id


def test_the_users_are_ours_with_their_numbers(every: Built):
    passwd = every.node.text("/etc/passwd")

    assert re.search(r"^ada:x:1000:1000:[^:]*:/home/ada:/bin/bash$", passwd, re.MULTILINE)
    assert re.search(r"^ops:x:1001:1001:[^:]*:/home/ops:/bin/bash$", passwd, re.MULTILINE)
    assert not re.search(r"^(pi|rosa|ubuntu|rpi-first-boot-wizard):", passwd, re.MULTILINE)
    assert every.node.names("/home") == {"ada", "ops"}
    assert every.node.owners() == {(1000, 1000), (1001, 1001)}
    assert every.node.inode("/home/ada/.Xauthority") is None
    shadow = every.node.inode("/etc/shadow")
    assert (shadow.mode, shadow.uid, shadow.gid) == (0o640, 0, 42)


@pytest.mark.parametrize("name", RASPIOS)
def test_the_renamed_home_keeps_what_was_in_it(name, of: Of):
    node = of(name).node

    assert node.text("/home/ada/.config/deep/file") == "kept\n"
    assert node.inode("/home/ada/.config/deep/file").mode == 0o640


def test_sudo_is_ours_alone(every: Built):
    assert every.node.text("/etc/sudoers.d/010_ada") == "ada ALL=(ALL:ALL) NOPASSWD: ALL\n"
    rules = [every.node.text(f"/etc/sudoers.d/{n}") for n in every.node.names("/etc/sudoers.d")]
    assert not [rule for rule in rules if "NOPASSWD" in rule and not rule.startswith("ada ")]


def test_hash_and_instance_are_in_a_seed_of_roots_alone(every: Built):
    node = every.node
    data = yaml.safe_load(node.text(f"{SEED}/user-data"))
    meta = yaml.safe_load(node.text(f"{SEED}/meta-data"))

    assert node.inode(SEED).mode == 0o700
    assert node.inode(f"{SEED}/user-data").mode == 0o600
    assert data["hostname"] == meta["local-hostname"] == "n0"
    if re.search("bullseye|buster", every.card.name):  # cloud-init before 22.3
        assert data["chpasswd"]["list"] == [f"ada:{HASH}"]
    else:
        assert data["chpasswd"]["users"][0] == {"name": "ada", "password": HASH, "type": "hash"}
    assert meta["instance-id"].startswith("piimage-vendors-n0-")


def test_cloud_init_looks_at_our_seed_and_no_other(every: Built):
    names = sorted(n for n in every.node.names("/etc/cloud/cloud.cfg.d") if n.endswith(".cfg"))
    last = yaml.safe_load(every.node.text(f"/etc/cloud/cloud.cfg.d/{names[-1]}"))

    assert "piimage" in names[-1]
    assert last["datasource"]["NoCloud"] == {"seedfrom": None, "fs_label": None}
    assert last["users"] == []


@pytest.mark.parametrize("name", WITH_NETWORK_MANAGER)
def test_networkmanager_has_two_private_profiles(name, of: Of):
    node = of(name).node
    wired, wifi = (
        node.text(f"{PROFILES}/piimage-{what}.nmconnection") for what in ("wired", "wifi")
    )

    assert "address1=10.77.3.1/16\n" in wired
    assert "never-default=true" in wired
    assert f"psk={PSK}\n" in wifi
    assert "ssid=Lab 2\n" in wifi
    for what in ("wired", "wifi"):
        inode = node.inode(f"{PROFILES}/piimage-{what}.nmconnection")
        assert (inode.mode, inode.uid, inode.gid) == (0o600, 0, 0)
    assert "WirelessEnabled=true" in node.text("/var/lib/NetworkManager/NetworkManager.state")
    assert node.inode("/var/lib/NetworkManager").mode == 0o700
    assert node.inode(f"{SEED}/network-config") is None
    assert node.text("/var/lib/systemd/rfkill/platform-fe300000.mmcnr:wlan") == "0\n"


@pytest.mark.parametrize("name", WITH_DHCPCD)
def test_dhcpcd_has_the_address_and_wpa_supplicant_the_key(name, of: Of):
    node = of(name).node
    key = "/etc/wpa_supplicant/wpa_supplicant.conf"
    inode = node.inode(key)

    assert "interface eth0\n" in node.text("/etc/dhcpcd.conf")
    assert "static ip_address=10.77.3.1/16\n" in node.text("/etc/dhcpcd.conf")
    assert f"\tpsk={PSK}\n" in node.text(key)
    assert '\tssid="Lab 2"\n' in node.text(key)
    assert "country=NO\n" in node.text(key)
    assert (inode.mode, inode.uid, inode.gid) == (0o600, 0, 0)
    assert node.text("/var/lib/systemd/rfkill/platform-fe300000.mmcnr:wlan") == "0\n"
    assert node.inode(f"{SEED}/network-config") is None


def test_programs_that_read_no_drop_ins_have_it_in_their_own_files(of: Of):
    """ssh and chrony of buster, and the NFS server of both."""
    node = of("buster").node
    served = [
        of(name).node.text("/etc/default/nfs-kernel-server") for name in ("bullseye", "buster")
    ]

    assert node.text("/etc/ssh/sshd_config").startswith("HostKey /etc/ssh/ssh_host_ed25519_key\n")
    assert node.text("/etc/ssh/ssh_config").startswith("Include /etc/ssh/ssh_config.d/*.conf\n")
    assert "Host n0 " in node.text("/etc/ssh/ssh_config.d/10-piimage.conf")
    assert "\nallow 10.77.0.0/16\n" in node.text("/etc/chrony/chrony.conf")
    assert "confdir" not in node.text("/etc/chrony/chrony.conf")
    for text_ in served:
        assert 'RPCNFSDOPTS="--no-nfs-version=3 --lease-time=30 --grace-time=30"\n' in text_


@pytest.mark.parametrize("name", ["noble", "resolute"])
def test_netplan_gets_its_network_from_the_seed(name, of: Of):
    found = yaml.safe_load(of(name).node.text(f"{SEED}/network-config"))["network"]

    assert found["ethernets"]["eth0"]["addresses"] == ["10.77.3.1/16"]
    point = found["wifis"]["wlan0"]["access-points"]["Lab 2"]
    assert point == {"password": PSK}
    assert found["wifis"]["wlan0"]["regulatory-domain"] == "NO"


def test_ifupdown_has_its_ports_in_one_file_and_the_key_in_a_private_one(of: Of):
    node = of("raspi").node
    ports = node.text("/etc/network/interfaces.d/piimage")
    key = "/etc/wpa_supplicant/wpa_supplicant.conf"
    inode = node.inode(key)

    assert node.names("/etc/network/interfaces.d") == {"piimage", "wlan0"}
    assert "iface eth0 inet static\n\taddress 10.77.3.1/16\n" in ports
    assert not re.search(r"^\s*(gateway|auto)", ports, re.MULTILINE)
    assert node.text("/etc/network/interfaces") == debian_raspi.INTERFACES
    assert (inode.mode, inode.uid, inode.gid) == (0o600, 0, 0)
    assert f"\tpsk={PSK}\n" in node.text(key)
    assert '\tssid="Lab 2"\n' in node.text(key)
    assert "country=NO\n" in node.text(key)
    assert node.text("/var/lib/systemd/rfkill/platform-fe300000.mmcnr:wlan") == "0\n"
    assert node.inode(f"{SEED}/network-config") is None


def test_nothing_of_the_first_boot_of_debians_images_undoes_the_node(of: Of):
    node = of("raspi").node

    assert node.names(f"{UNITS}/basic.target.requires") == set()
    assert node.names(f"{UNITS}/multi-user.target.requires") == set()
    assert "sysconf.txt" not in node.fat_names()
    assert node.text("/etc/shadow").startswith("root:*:")
    assert node.text("/etc/default/raspi-extra-cmdline") == "cfg80211.ieee80211_regdom=NO\n"
    assert node.text("/etc/default/raspi-firmware").count("ROOTPART=LABEL=RASPIROOT\n") == 1


def test_no_secret_is_on_the_fat(every: Built):
    names = [n for n in every.node.fat_names() if n.endswith((".txt", "data", "json"))]
    texts = [every.node.fat(n) for n in names]

    assert {"cmdline.txt", "config.txt", "piimage.json"} <= set(names)
    assert not [t for t in texts if PSK in t or HASH in t or "PRIVATE KEY" in t]


def test_ssh_runs_with_the_nodes_own_key(every: Built):
    node = every.node

    assert node.inode(f"{UNITS}/multi-user.target.wants/ssh.service").kind == "symlink"
    assert "ssh.socket" not in node.names(f"{UNITS}/sockets.target.wants")
    assert "ssh.socket" not in node.names(f"{UNITS}/ssh.service.requires")
    key = node.inode("/etc/ssh/ssh_host_ed25519_key")
    assert (key.mode, key.uid) == (0o600, 0)
    assert "n0" in node.text("/etc/ssh/ssh_known_hosts")
    assert node.text("/home/ada/.ssh/authorized_keys").startswith("ssh-ed25519 ")


def test_the_first_boots_script_leaves_the_key_alone(of: Of):
    script = of("bookworm").node.text("/usr/lib/raspberrypi-sys-mods/regenerate_ssh_host_keys")

    assert "rm" not in re.sub(r"#.*", "", script)
    assert (
        of("bookworm").node.fat("cmdline.txt").count("init=/usr/lib/raspberrypi-sys-mods/firstboot")
        == 1
    )


@pytest.mark.parametrize("name", ASKING)
def test_no_wizard_waits_for_anybody(name, of: Of):
    node = of(name).node

    assert node.inode(f"{UNITS}/userconfig.service").target == "/dev/null"
    assert node.inode(f"{UNITS}/getty.target.wants/getty@tty1.service").kind == "symlink"
    assert node.inode("/etc/ssh/sshd_config.d/rename_user.conf") is None
    assert node.inode("/etc/xdg/autostart/piwiz.desktop") is None
    assert node.inode("/etc/sudoers.d/010_wiz-nopasswd") is None


def test_what_grows_the_card_is_still_there(of: Of):
    trixie, bookworm = of("trixie").node, of("bookworm").node

    assert trixie.text("/etc/machine-id") == "uninitialized\n"
    assert trixie.inode(f"{UNITS}/sysinit.target.wants/rpi-resize.service").kind == "symlink"
    assert " resize " in trixie.fat("cmdline.txt")
    assert bookworm.inode("/etc/rc3.d/S01resize2fs_once").kind == "symlink"
    buster = of("buster").node
    assert buster.text("/etc/machine-id").strip() == ""
    assert buster.fat("cmdline.txt").count("init=/usr/lib/raspi-config/init_resize.sh") == 1
    assert buster.inode("/etc/rc3.d/S01resize2fs_once").kind == "symlink"


def test_share_time_target_and_names(every: Built):
    node = every.node

    assert node.text("/etc/exports.d/piimage.exports").startswith("/srv/work 10.77.0.0/16(rw,")
    assert node.inode("/srv/work").kind == "directory"
    assert node.inode(f"{UNITS}/multi-user.target.wants/chrony.service").kind == "symlink"
    assert "systemd-timesyncd.service" not in node.names(f"{UNITS}/sysinit.target.wants")
    if node.inode("/etc/chrony/sources.d") is not None:
        assert node.names("/etc/chrony/sources.d") == set()
    assert (
        node.inode(f"{UNITS}/default.target").target == "/usr/lib/systemd/system/multi-user.target"
    )
    assert "10.77.3.2 n1\n" in node.text("/etc/hosts")
    assert "127.0.1.1" not in node.text("/etc/hosts")
    assert node.text("/etc/piimage/hostfile") == "".join(f"n{n} slots=4\n" for n in range(3))
    assert node.inode("/etc/localtime").target.endswith("/Europe/Rome")


def test_originals_are_never_touched(every: Built):
    root = Reading(every.base, every.node.path.parent)

    assert root.disk_id == every.card.layout.disk_id
    assert root.text("/etc/passwd") == every.card.root["/etc/passwd"].content.decode()
