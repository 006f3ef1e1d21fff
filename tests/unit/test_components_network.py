from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from ipaddress import IPv4Interface

import phony_facts as phony
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from piimage.components import cloudinit, network, slots
from piimage.delta import File
from piimage.errors import PiimageError, UnsupportedError


def stamp(number=0, *, facts=None, secrets=None, **more):
    cluster = phony.cluster(**more)
    secrets = secrets or phony.secrets(cluster)
    return network.stamp(cluster, cluster.nodes[number], facts or phony.debian(), secrets)


def image(role=phony.HEAD, facts=None, **more):
    return network.image(phony.cluster(**more), role, facts or phony.debian())


def test_the_wire_has_an_address_and_no_way_out():
    wired = stamp(1).network["ethernets"]

    assert set(wired) == {"eth0", "end0"}
    for port in wired.values():
        assert port["addresses"] == ["10.1.10.241/24"]
        assert port["optional"] is True
        assert (port["dhcp4"], port["dhcp6"], port["accept-ra"]) == (False, False, False)
        assert not {"routes", "gateway4", "nameservers"} & set(port)


def test_a_gateway_on_the_wire_has_the_default_route_and_answers_names():
    ports = stamp(1, wifi=None, **phony.OUTWARD).network["ethernets"]

    assert ports["eth0"]["routes"] == [{"to": "0.0.0.0/0", "via": "10.1.10.1", "metric": 100}]
    assert ports["eth0"]["nameservers"] == {"addresses": ["10.1.10.1", "9.9.9.9"]}
    assert ports["end0"]["routes"][0]["metric"] == 101


def test_the_way_out_is_asked_for_on_the_node():
    checks = {check.name: check.expect for check in stamp(1, wifi=None, **phony.OUTWARD).checks}
    found = "default via 10.1.10.1 dev eth0 proto static metric 100\n"

    assert re.search(checks["default route on the wire"], found)
    assert not re.search(checks["default route on the wire"], found.replace("0.1 ", "0.11 "))
    assert re.search(checks["name server 9.9.9.9"], "nameserver 127.0.0.53\nnameserver 9.9.9.9\n")
    assert not re.search(checks["name server 9.9.9.9"], "nameserver 9.9.9.91\n")
    assert "no default route on the wire" not in checks


def test_a_known_mac_names_the_port_without_renaming_it():
    cluster = phony.cluster()
    node = replace(cluster.nodes[1], mac="DC:A6:32:00:00:01")

    wired = network.stamp(cluster, node, phony.debian(), phony.secrets(cluster)).network[
        "ethernets"
    ]

    assert wired["wired"]["match"] == {"macaddress": "dc:a6:32:00:00:01"}
    assert "set-name" not in wired["wired"]


def test_wifi_only_where_role_and_cluster_have_it():
    assert "wifis" in stamp(0).network
    assert "wifis" not in stamp(1).network
    assert "wifis" not in stamp(0, wifi=None).network


def test_wifi_carries_the_hash_and_the_country():
    wlan = stamp(0, wifi=replace(phony.WIFI, country="NO", hidden=True)).network["wifis"]["wlan0"]

    assert wlan["access-points"] == {"lab": {"password": phony.PSK, "hidden": True}}
    assert (wlan["dhcp4"], wlan["optional"], wlan["regulatory-domain"]) == (True, True, "NO")


def test_country_no_stays_a_string_for_cloud_init():
    text = cloudinit.seed({}, stamp(0, wifi=replace(phony.WIFI, country="NO")).network)

    loaded = yaml.safe_load(text[slots.NETWORK])["network"]

    assert loaded["wifis"]["wlan0"]["regulatory-domain"] == "NO"


def test_wifi_without_a_passphrase_is_refused():
    cluster = phony.cluster()

    with pytest.raises(PiimageError, match="node `node0` has Wi-Fi, but there is no passphrase"):
        stamp(0, secrets=phony.secrets(cluster, psk=None))


def test_wifi_switches_the_radio_on_and_does_not_wait_for_it():
    part = image()
    entries = part.delta.entries

    assert part.cmdline == ("cfg80211.ieee80211_regdom=IT",)
    assert entries["/var/lib/systemd/rfkill/platform-fe300000.mmcnr:wlan"] == File(b"0\n")
    device = "/etc/systemd/system/sys-subsystem-net-devices-wlan0.device.d/10-piimage.conf"
    assert entries[device].content == b"[Unit]\nJobRunningTimeoutSec=10s\n"
    assert (
        b"netplan-wpa-wlan0.service" in entries["/etc/udev/rules.d/90-piimage-wlan.rules"].content
    )


def test_a_role_without_wifi_leaves_the_radio_alone():
    part = image(phony.WORKER)

    assert part.cmdline == ()
    assert not [p for p in part.delta.entries if "rfkill" in p or "wlan" in p]
    assert any("wait-online" in p for p in part.delta.entries)


@pytest.mark.parametrize("stack", ["wicd", ""])
def test_other_stacks_are_refused_by_name(stack):
    with pytest.raises(UnsupportedError, match=f"`{stack or 'nothing known'}`, which is not"):
        image(facts=replace(phony.debian(), network_stack=stack))


def test_backslash_in_an_ssid_is_escaped_only_for_netplans_that_read_escapes():
    wifi = replace(phony.WIFI, ssid="a\\b")
    old = replace(phony.debian(), packages={"netplan.io": "0.106-2+deb12u1"})

    new_key = next(iter(stamp(wifi=wifi).network["wifis"]["wlan0"]["access-points"]))
    old_key = next(iter(stamp(wifi=wifi, facts=old).network["wifis"]["wlan0"]["access-points"]))

    assert (new_key, old_key) == ("a\\\\b", "a\\b")


def test_checks_hold_for_what_a_node_prints():
    checks = {check.name: check for check in stamp(1).checks}
    shown = "2: eth0    inet 10.1.10.241/24 brd 10.1.10.255 scope global eth0\n"
    routes = checks["no default route on the wire"].expect

    assert re.search(checks["wired address"].expect, shown)
    assert not re.search(checks["wired address"].expect, shown.replace("241", "24"))
    assert re.search(routes, "default via 192.168.1.1 dev wlan0 proto dhcp\n")
    assert re.search(routes, "")
    assert not re.search(routes, "default via 10.1.10.1 dev eth0\n")


ssids = st.text(
    st.characters(
        exclude_categories=("Cc", "Cs", "Cn", "Co", "Zl", "Zp"), exclude_characters="\ufeff"
    ),
    min_size=1,
    max_size=32,
).filter(lambda ssid: len(ssid.encode()) <= 32)


def generate(root, data):
    """What netplan makes of a network-config, after cloud-init passed it through."""
    (root / "etc/netplan").mkdir(parents=True)
    file = root / "etc/netplan/50-cloud-init.yaml"
    file.write_text(yaml.safe_dump({"network": data}))
    file.chmod(0o600)
    done = subprocess.run(
        ["netplan", "generate", "--root-dir", root], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


# One run of netplan takes half a second, so each example puts many SSIDs into one file.
@settings(max_examples=4, deadline=None)
@given(
    names=st.lists(ssids, min_size=1, max_size=40, unique=True),
    country=st.sampled_from(["IT", "NO", "GB"]),
    address=st.integers(1 << 24, 0xDFFFFFFF),
    prefix=st.integers(8, 30),
    mac=st.sampled_from([None, "12:34:56:12:34:56"]),
)
def test_netplan_accepts_every_network_config(  # noqa: PLR0917 -- hypothesis passes names
    names, country, address, prefix, mac, tmp_path_factory
):
    cluster = phony.cluster(wifi=replace(phony.WIFI, country=country))
    node = replace(cluster.nodes[0], address=IPv4Interface((address, prefix)), mac=mac)
    secrets = phony.secrets(cluster)
    part = network.stamp(cluster, node, phony.debian(), secrets)
    data = yaml.safe_load(cloudinit.seed({}, part.network)[slots.NETWORK])["network"]
    for name in names:
        one = replace(cluster, wifi=replace(phony.WIFI, ssid=name))
        wlan = network.stamp(one, node, phony.debian(), secrets).network
        text = cloudinit.seed({}, wlan)[slots.NETWORK]
        points = yaml.safe_load(text)["network"]["wifis"]["wlan0"]["access-points"]
        data["wifis"]["wlan0"]["access-points"] |= points

    root = tmp_path_factory.mktemp("netplan")
    generate(root, data)

    made = root / "run/systemd/network"
    for port in ["wired"] if mac else ["eth0", "end0"]:
        text = (made / f"10-netplan-{port}.network").read_text()
        assert f"Address={node.address}\n" in text
        assert "Gateway" not in text
    supplicant = (root / "run/netplan/wpa-wlan0.conf").read_text()
    assert supplicant.count("\nnetwork={") == len({"lab", *names})
