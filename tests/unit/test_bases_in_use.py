"""An image of a card that was in use: whom it would let in, which networks it would join, what runs as its user."""

from __future__ import annotations

from dataclasses import replace

import phony_facts as phony
import pytest
from delta_files import file_at
from fixtures import debian_raspi, raspios, ubuntu
from fixtures.card import Node, folder, link, text
from fixtures.facts_of import facts_of

from piimage import apply
from piimage.components import fstab, network_dhcpcd, ssh
from piimage.delta import Absent, Delta, Symlink, Tree
from piimage.errors import ImageError
from piimage.plan import plan

PROFILES = "/etc/NetworkManager/system-connections"
HOME_WIFI = """\
[connection]
id=home
type=wifi

[wifi]
ssid=somebody's
"""
NETWORK = 'country=GB\nnetwork={\n\tssid="home"\n\tpsk="secret word"\n}\n'


def with_nodes(card, nodes):
    return facts_of(replace(card, root={**card.root, **nodes}))


def with_lines(card, path, lines):
    node = card.root[path]
    return {path: replace(node, data=node.content + lines)}


def entries(facts, **more):
    return plan.plan_variant(phony.cluster(**more), phony.HEAD, facts).delta.entries


def keys(path, uid=0):
    return {
        f"{path}/.ssh": folder(0o700, uid, uid),
        f"{path}/.ssh/authorized_keys": text("k\n", 0o600, uid, uid),
    }


def test_keys_of_people_whom_the_cluster_does_not_know_are_taken_out():
    card = raspios.trixie(raspios.Choice(user="pi"))
    people = b"bob:x:1007:1007::/srv/people/bob:/bin/bash\nodd:x:1008:1008::../etc:/bin/sh\n"
    facts = with_nodes(
        card,
        {
            **with_lines(card, "/etc/passwd", people),
            **keys("/root"),
            **keys("/srv/people/bob", 1007),
            **keys("/home/pi", 1000),
            "/home/pi/.ssh/authorized_keys2": text("stranger\n", 0o600, 1000, 1000),
            "/home/pi/.ssh/id_rsa": text("pi's own\n", 0o600, 1000, 1000),
        },
    )

    found = entries(facts)

    gone = {path for path, entry in found.items() if entry == Absent() and "/.ssh/" in path}
    assert gone == {
        "/root/.ssh/authorized_keys",
        "/srv/people/bob/.ssh/authorized_keys",
        "/home/federico/.ssh/authorized_keys2",
    }
    assert found["/home/federico"] == Tree("/home/pi")
    assert facts.files["/srv/people/bob/.ssh/authorized_keys"].content is None


@pytest.mark.parametrize(
    ("path", "lines", "said"),
    [
        ("", b"AuthorizedKeysFile\t.ssh/authorized_keys\n", []),
        ("", b"#AuthorizedKeysFile /x\n#TrustedUserCAKeys /etc/ssh/ca\n", []),
        ("", b"AuthorizedKeysFile /etc/ssh/keys/%u\n", ["AuthorizedKeysFile .ssh/authorized_keys"]),
        (".d/50-ca.conf", b"trustedusercakeys=/etc/ssh/ca.pub\n", ["TrustedUserCAKeys none"]),
        (".d/50-ask.conf", b"AuthorizedKeysCommand /usr/bin/ask %u\n", ["AuthorizedKeysCommand none"]),
    ],
)  # fmt: skip
def test_keys_that_the_base_accepts_from_elsewhere_do_not_count(path, lines, said):
    card, config = ubuntu.noble(), f"/etc/ssh/sshd_config{path}"
    known = card.root.get(config, text(""))
    facts = with_nodes(card, {config: replace(known, data=known.content + lines)})

    found = entries(facts)

    (ours,) = [p for p in found if p.startswith("/etc/ssh/sshd_config") and "piimage" in p]
    plain = ssh.config_text(phony.cluster())
    assert file_at(found, ours).content.decode() == plain + "".join(f"{line}\n" for line in said)


def test_host_keys_of_other_types_are_not_shared_by_all_nodes():
    kinds = ("rsa", "ecdsa", "ed25519")
    names = [f"ssh_host_{kind}_key{half}" for kind in kinds for half in ("", ".pub")]
    facts = with_nodes(raspios.trixie(), {f"/etc/ssh/{name}": text("old\n") for name in names})

    found = entries(facts)

    gone = {path for path, entry in found.items() if entry == Absent()}
    assert {f"/etc/ssh/{name}" in gone for name in names[:4]} == {True}
    assert not {f"/etc/ssh/{name}" for name in names[4:]} & gone


@pytest.mark.parametrize("wifi", [phony.WIFI, None])
def test_profiles_of_other_networks_are_taken_out(wifi):
    wired = "[connection]\nid=Wired\n type = 802-3-ethernet\n"
    facts = with_nodes(
        raspios.trixie(),
        {
            f"{PROFILES}/home.nmconnection": text(HOME_WIFI, 0o600),
            f"{PROFILES}/preconfigured.nmconnection": text(HOME_WIFI + "interface-name=wlan0\n"),
            f"{PROFILES}/wire": text(wired),
            f"{PROFILES}/second.nmconnection": text(wired + "interface-name=eth1\n"),
            f"{PROFILES}/vpn.nmconnection": text("[connection]\nid=v\ntype=wireguard\n"),
            "/etc/netplan/90-NM-1234.yaml": text("network:\n  wifis:\n    NM-1234: {}\n", 0o600),
            "/etc/netplan/01-all.yaml": text("network: {renderer: NetworkManager}\n# wifis: {}\n"),
            "/etc/wpa_supplicant/wpa_supplicant.conf": text(NETWORK, 0o600),
        },
    )

    found = entries(facts, wifi=wifi)

    places = (PROFILES, "/etc/netplan/", "/etc/wpa_supplicant/")
    gone = {p for p, entry in found.items() if entry == Absent() and p.startswith(places)}
    assert gone == {
        f"{PROFILES}/home.nmconnection",
        f"{PROFILES}/preconfigured.nmconnection",
        f"{PROFILES}/wire",
        "/etc/netplan/90-NM-1234.yaml",
        "/etc/wpa_supplicant/wpa_supplicant.conf",
    }


def test_networkd_gets_no_other_netplan_file_of_our_ports():
    """Of two files that speak of a port the later one counts, and access points add up (netplan(5))."""
    facts = with_nodes(
        ubuntu.noble(),
        {
            "/etc/netplan/99-mine.yaml": text('network: {"ethernets": {"eth0": {"dhcp4": true}}}\n'),
            "/etc/netplan/60-other.yaml": text("network:\n  ethernets:\n    eth1: {dhcp4: true}\n"),
        },
    )  # fmt: skip

    found = entries(facts)

    assert found["/etc/netplan/99-mine.yaml"] == Absent()
    assert "/etc/netplan/60-other.yaml" not in found


@pytest.mark.parametrize("make", [raspios.bullseye, debian_raspi.bookworm])
@pytest.mark.parametrize("wifi", [phony.WIFI, None])
def test_wpa_supplicant_knows_no_other_network(make, wifi):
    common = "/etc/wpa_supplicant/wpa_supplicant.conf"
    facts = with_nodes(
        make(),
        {
            common: text(NETWORK, 0o600),
            "/etc/wpa_supplicant/wpa_supplicant-wlan0.conf": text(NETWORK, 0o600),
        },
    )
    wireless = dict.fromkeys(("wpasupplicant", "isc-dhcp-client"), "1")
    facts = replace(facts, packages={**facts.packages, **wireless})

    found = entries(facts, wifi=wifi)

    assert found["/etc/wpa_supplicant/wpa_supplicant-wlan0.conf"] == Absent()
    assert (found[common] == Absent()) == (wifi is None)


def test_networkd_gets_no_other_file_for_our_ports():
    """Of those that fit a port the first counts, and `10-eth0` comes before netplan's `10-netplan-eth0`."""
    place = "/etc/systemd/network"
    texts = {
        "10-eth0.network": "[Match]\nName=eth0\n[Network]\nAddress=192.168.1.5/24\n",
        "05-all.network": "[Match]\nName=lo e*\n",
        "20-kind.network": "[Match]\nType=ether\n",
        "30-other.network": "[Match]\nName=!eth0 eth1\n",
        "40-stick.network": "[Match]\nMACAddress=00:11:22:33:44:55\n#Name=eth0\nType=ether\nName=enx*\n",
        "10-eth0.link": "[Match]\nOriginalName=eth0\n[Link]\nWakeOnLan=off\n",
    }
    facts = with_nodes(ubuntu.noble(), {f"{place}/{name}": text(t) for name, t in texts.items()})

    found = entries(facts)

    gone = {p.rpartition("/")[2] for p, e in found.items() if p.startswith(place) and e == Absent()}
    assert gone == {"10-eth0.network", "05-all.network", "20-kind.network"}


def test_dhcpcd_forgets_addresses_of_another_network():
    """Options of two blocks of a port add up, and one address of Wi-Fi would be that of all nodes."""
    stock = (
        "# own\nhostname\ndenyinterfaces eth0\ninterface eth0\nstatic ip_address=192.168.1.5/24\n"
        "static routers=192.168.1.1\n# a note\ninterface eth1\nstatic ip_address=172.16.0.1/24\n"
        "interface wlan0\nstatic ip_address=192.168.1.6/24\nssid home\nstatic routers=192.168.1.1"
    )
    cluster = phony.cluster()

    made = network_dhcpcd.config_text(stock, cluster, cluster.nodes[1])

    head, _, tail = made.partition("# added by piimage\n")
    assert head == "# own\nhostname\n# a note\n"
    assert tail == (
        "allowinterfaces eth0 end0 wlan0\n"
        "interface eth1\nstatic ip_address=172.16.0.1/24\nssid home\nstatic routers=192.168.1.1\n"
        "interface eth0\nstatic ip_address=10.1.10.241/24\nnogateway\nnoipv6rs\n"
        "interface end0\nstatic ip_address=10.1.10.241/24\nnogateway\nnoipv6rs\n"
    )


def test_vendor_data_beside_our_seed_makes_nobody():
    seed = "/var/lib/cloud/seed/nocloud"
    names = ("user-data", "meta-data", "network-config", "vendor-data")
    facts = with_nodes(
        raspios.trixie(), {f"{seed}/{name}": text("#cloud-config\n") for name in names}
    )

    found = entries(facts)

    gone = {path for path, entry in found.items() if entry == Absent() and path.startswith(seed)}
    assert gone == {f"{seed}/vendor-data", f"{seed}/network-config"}


@pytest.mark.parametrize(
    ("line", "becomes"),
    [
        ("UUID=0a-1 /data ext4 defaults,noatime 0 2", "UUID=0a-1\t/data\text4\tdefaults,noatime,{}\t0\t2"),
        ("LABEL=nas /srv/n\\040s ext4", "LABEL=nas\t/srv/n\\040s\text4\tdefaults,{}\t0\t0"),
        ("/dev/sda1 /media/stick vfat umask=0", "/dev/sda1\t/media/stick\tvfat\tumask=0,{}\t0\t0"),
        ("UUID=0a-1 none swap sw 0 0", "UUID=0a-1\tnone\tswap\tsw,{}\t0\t0"),
        ("UUID=0a-1 /data ext4 nofail 0 2", ""),
        ("UUID=0a-1 /data ext4 ro,noauto 0 2", ""),
        ("/swapfile none swap sw 0 0", ""),
        ("tmpfs /tmp tmpfs size=64m 0 0", ""),
        ("#UUID=0a-1 /data ext4 defaults 0 2", ""),
    ],
)  # fmt: skip
def test_no_boot_ends_for_want_of_a_disk_of_another_machine(line, becomes):
    card = ubuntu.noble()
    before = card.root["/etc/fstab"].content.decode()
    facts = with_nodes(card, with_lines(card, "/etc/fstab", f"{line}\n".encode()))

    after = fstab.bootable_without(facts.text("/etc/fstab"), facts)

    patient = becomes.format("nofail,x-systemd.device-timeout=10s")
    assert after == before + (patient or line) + "\n"
    assert ("/etc/fstab" in entries(facts)) == bool(becomes)
    assert fstab.bootable_without(after, facts) == after


SERVICE = """\
[Service]
User=pi
Group = pi
SupplementaryGroups=video
WorkingDirectory=/home/pi/app
ExecStart=/home/pi/app/run --not /home/pirate /srv/home/pi --user pi
"""


def in_use(home="/home/pi") -> dict[str, Node]:
    units = "/etc/systemd/system"
    return {
        home: folder(0o755, 1000, 1000),
        f"{units}/app.service": text(SERVICE, 0o640),
        f"{units}/nginx.service.d/me.conf": text("[Service]\nUser=pi\nUser=pip\n"),
        f"{units}/app.socket": text("[Socket]\nSocketUser=pi\nSocketGroup=pi\n"),
        f"{units}/multi-user.target.wants/syncthing@pi.service": link(
            "/usr/lib/systemd/system/syncthing@.service"
        ),
        f"{units}/multi-user.target.wants/other@pi.service": link("/etc/elsewhere.service"),
        "/etc/cron.d/app": text(
            "# pi\nSHELL=/bin/sh\n*/5 * * * * pi /home/pi/app/tick pi\n@reboot pi true\n0 1 * * * root pi\n"
        ),
        "/etc/crontab": text("17 * * * *\tpi\ttrue\n"),
    }  # fmt: skip


def test_units_and_cron_jobs_of_the_bases_user_run_as_the_one_who_takes_over():
    facts = with_nodes(raspios.trixie(), in_use())

    found = entries(facts)

    def said(path):
        return file_at(found, path).content.decode()

    units = "/etc/systemd/system"
    assert said(f"{units}/app.service") == (
        "[Service]\nUser=federico\nGroup = federico\nSupplementaryGroups=video\n"
        "WorkingDirectory=/home/federico/app\n"
        "ExecStart=/home/federico/app/run --not /home/pirate /srv/home/pi --user pi\n"
    )
    assert file_at(found, f"{units}/app.service").mode == 0o640
    assert said(f"{units}/nginx.service.d/me.conf") == "[Service]\nUser=federico\nUser=pip\n"
    assert said(f"{units}/app.socket") == "[Socket]\nSocketUser=federico\nSocketGroup=federico\n"
    assert said("/etc/cron.d/app") == (
        "# pi\nSHELL=/bin/sh\n*/5 * * * * federico /home/federico/app/tick pi\n"
        "@reboot federico true\n0 1 * * * root pi\n"
    )
    assert said("/etc/crontab") == "17 * * * *\tfederico\ttrue\n"
    wants = f"{units}/multi-user.target.wants"
    assert found[f"{wants}/syncthing@pi.service"] == Absent()
    target = "/usr/lib/systemd/system/syncthing@.service"
    assert found[f"{wants}/syncthing@federico.service"] == Symlink(target)
    assert f"{wants}/other@pi.service" not in found


def test_units_stay_where_the_user_keeps_name_and_home():
    facts = with_nodes(raspios.trixie(), in_use())
    users = (phony.user("pi", 1000),)

    assert set(in_use()) & set(entries(facts, users=users)) == {"/home/pi"}


def test_a_group_that_is_not_the_users_own_keeps_its_name():
    card = raspios.trixie()
    moved = card.root["/etc/passwd"].content.replace(b"pi:x:1000:1000:", b"pi:x:1000:100:")
    nodes = {"/etc/passwd": replace(card.root["/etc/passwd"], data=moved)}
    facts = with_nodes(card, {**nodes, **in_use()})
    users = (phony.user("federico", 1500, rename_from="pi"),)

    found = entries(facts, users=users)

    unit = file_at(found, "/etc/systemd/system/app.service").content.decode()

    assert "User=federico\nGroup = pi\n" in unit


def test_access_control_lists_follow_the_numbers():
    def lines(*trees):
        delta = Delta.of("x", {f"/srv/{n}": tree for n, tree in enumerate(trees)})
        return [line for line in apply._commands(delta) if "setfacl" in line]

    assert lines(Tree("/srv/a")) == []
    users, groups = lines(Tree("/srv/a", ((1, 2), (2, 1)), ((5, 6),)))
    assert r"'s/^(default:)?user:1:/\1user:2147418112:/'" in users
    assert users.index("user:2147418112:/'") < users.index(r"\1user:2:/'")
    assert r"'s/^(default:)?group:5:/\1group:6:/'" in groups


def test_what_nobody_may_change_is_told_with_the_cure():
    with pytest.raises(ImageError) as refused, apply._told_of_attributes():
        raise ImageError("libguestfs: chown: changing ownership of 'x': Operation not permitted")
    assert "immutable" in (refused.value.hint or "")

    with pytest.raises(ImageError) as other, apply._told_of_attributes():
        raise ImageError("libguestfs: something else")
    assert other.value.hint is None
