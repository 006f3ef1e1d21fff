"""NetworkManager's keyfiles as NetworkManager itself reads them, and dhcpcd with wpa_supplicant."""

from __future__ import annotations

import re
from dataclasses import replace

import libnm
import phony_facts as phony
import pytest
from delta_files import file_at
from hypothesis import given, settings
from hypothesis import strategies as st

from piimage.components import cloudinit, network, network_dhcpcd, network_profiles, slots
from piimage.delta import Absent, File, Slot
from piimage.errors import PiimageError, UnsupportedError
from piimage.plan import plan

WIRED, WIFI = network_profiles.WIRED_PROFILE, network_profiles.WIFI_PROFILE
STOCK = """\
# A sample configuration for dhcpcd.
hostname
clientid
persistent
option rapid_commit
require dhcp_server_identifier
slaac private

#interface eth0
#static ip_address=192.168.0.10/24
"""


def manager(stack="networkmanager", **files):
    base = phony.raspios()
    units = {
        **base.units,
        "NetworkManager.service": phony.service("NetworkManager.service", enabled=True),
        "NetworkManager-wait-online.service": phony.service(
            "NetworkManager-wait-online.service", wanted_by="network-online.target"
        ),
    }
    folder = {"/var/lib/NetworkManager": phony.folder(0o700), **files}
    return replace(phony.with_files(base, folder), network_stack=stack, units=units)


def dhcpcd(**files):
    base = phony.raspios()
    units = {**base.units, "dhcpcd.service": phony.service("dhcpcd.service", enabled=True)}
    wait = "/etc/systemd/system/dhcpcd.service.d/wait.conf"
    found = {
        "/etc/dhcpcd.conf": phony.text(STOCK, 0o664, 106),
        wait: phony.text("[Service]\nExecStart=\nExecStart=/usr/lib/dhcpcd5/dhcpcd -q -w\n"),
        **files,
    }
    return replace(phony.with_files(base, found), network_stack="dhcpcd", units=units)


def profile(path, cluster, number=0):
    """A stamped profile as libnm reads it."""
    node = cluster.nodes[number]
    filled = network.stamp(cluster, node, manager(), phony.secrets(cluster)).slots
    return libnm.read((filled[path] + b"\n" * 100).decode())  # with the padding of a slot


def test_networkmanager_reads_the_wire_as_it_is_meant():
    wire = profile(WIRED, phony.cluster(), 1)
    four, six = wire.get_setting_ip4_config(), wire.get_setting_ip6_config()

    assert [a.get_address() for a in [four.get_address(0)]] == ["10.1.10.241"]
    assert four.get_address(0).get_prefix() == 24
    assert (four.get_method(), four.get_gateway(), four.get_never_default()) == (
        "manual", None, True,
    )  # fmt: skip
    assert (six.get_method(), six.get_never_default()) == ("link-local", True)
    match = wire.get_setting_by_name("match")
    assert match.get_interface_names() == ["eth0", "end0"]
    assert wire.get_setting_connection().get_autoconnect()
    assert wire.get_setting_connection().get_autoconnect_retries() == 0


def test_networkmanager_reads_the_way_out():
    four = profile(WIRED, phony.cluster(wifi=None, **phony.OUTWARD), 1).get_setting_ip4_config()

    assert (four.get_gateway(), four.get_never_default()) == ("10.1.10.1", False)
    assert [four.get_dns(i) for i in range(four.get_num_dns())] == ["10.1.10.1", "9.9.9.9"]


def test_dhcpcd_is_told_the_way_out():
    cluster = phony.cluster(wifi=None, **phony.OUTWARD)

    text = network_dhcpcd.config_text("", cluster, cluster.nodes[1])

    assert text.endswith(
        "interface end0\nstatic ip_address=10.1.10.241/24\nstatic routers=10.1.10.1\n"
        "static domain_name_servers=10.1.10.1 9.9.9.9\nnoipv6rs\n"
    )


def test_a_known_mac_names_the_port_alone():
    cluster = phony.cluster()
    nodes = (replace(cluster.nodes[0], mac="dc:a6:32:00:00:01"), *cluster.nodes[1:])

    wire = profile(WIRED, replace(cluster, nodes=nodes))

    assert wire.get_setting_wired().get_mac_address() == "DC:A6:32:00:00:01"
    assert wire.get_setting_by_name("match") is None


ssids = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=32
).filter(lambda ssid: len(ssid.encode()) <= 32)


@settings(max_examples=60)
@given(ssid=ssids, hidden=st.booleans())
def test_networkmanager_reads_every_ssid_and_the_hash_for_the_key_itself(ssid, hidden):
    wifi = replace(phony.WIFI, ssid=ssid, hidden=hidden)

    found = profile(WIFI, phony.cluster(wifi=wifi))

    radio, key = found.get_setting_wireless(), found.get_setting_wireless_security()
    assert radio.get_ssid().get_data() == ssid.encode()
    assert radio.get_hidden() is hidden
    assert (key.get_key_mgmt(), key.get_psk()) == ("wpa-psk", phony.PSK)
    assert found.get_setting_ip4_config().get_method() == "auto"
    assert not found.get_setting_ip4_config().get_never_default()
    assert found.get_setting_connection().get_interface_name() == "wlan0"


@pytest.mark.parametrize("ssid", ["1;2;", "lab", " lab", "lab ", "a\\nb", "12", "a;b", "Café"])
def test_ssids_that_a_keyfile_could_mistake(ssid):
    found = profile(WIFI, phony.cluster(wifi=replace(phony.WIFI, ssid=ssid)))

    assert found.get_setting_wireless().get_ssid().get_data() == ssid.encode()


@pytest.mark.parametrize("stack", ["networkmanager", "netplan-networkmanager"])
def test_profiles_are_slots_of_root_alone_and_nothing_waits(stack):
    part = network.image(phony.cluster(), phony.HEAD, manager(stack))
    entries = part.delta.entries

    assert entries[WIRED] == entries[WIFI] == Slot(4096, mode=0o600)
    assert part.enable == ("NetworkManager.service",)
    wait = "/etc/systemd/system/NetworkManager-wait-online.service.d/90-piimage.conf"
    assert file_at(entries, wait).content.endswith(b"ExecStart=\nExecStart=/usr/bin/true\n")
    settings_file = file_at(entries, "/etc/NetworkManager/conf.d/90-piimage.conf")
    assert b"no-auto-default=*" in settings_file.content
    assert b"WirelessEnabled=true" in file_at(entries, network_profiles._STATE).content
    assert "cfg80211.ieee80211_regdom=IT" in part.cmdline
    assert "/var/lib/NetworkManager" not in entries


def test_a_node_without_wifi_has_no_profile_for_it():
    part = network.image(phony.cluster(), phony.WORKER, manager())
    filled = network.stamp(
        phony.cluster(), phony.cluster().nodes[1], manager(), phony.secrets(phony.cluster())
    ).slots

    assert WIFI not in part.delta.entries
    assert network_profiles._STATE not in part.delta.entries
    assert set(filled) == {WIRED}


@pytest.mark.parametrize("base", [manager, dhcpcd])
def test_wifi_without_a_passphrase_is_refused_everywhere(base):
    cluster = phony.cluster()

    with pytest.raises(PiimageError, match="node `node0` has Wi-Fi, but there is no passphrase"):
        network.stamp(cluster, cluster.nodes[0], base(), phony.secrets(cluster, psk=None))


@pytest.mark.parametrize("base", [manager, dhcpcd])
def test_cloud_init_leaves_the_network_alone_where_it_is_not_netplans(base):
    cluster, facts = phony.cluster(), base()
    variant = plan.plan_variant(cluster, phony.HEAD, facts)

    stamp = plan.plan_stamp(
        cluster, cluster.nodes[0], facts, variant, "f" * 64, phony.secrets(cluster)
    )

    assert slots.NETWORK not in variant.slots
    assert set(stamp.slots) == set(variant.slots)
    settings_file = file_at(variant.delta.entries, cloudinit.drop_in(facts))
    assert b"network: {config: disabled}\n" in settings_file.content
    secret = {p for p, content in stamp.slots.items() if phony.PSK.encode() in content}
    assert secret in ({WIFI}, {network_dhcpcd.SUPPLICANT})
    assert all(variant.slots[p].mode == 0o600 for p in secret)
    assert phony.PSK not in repr(stamp)


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ((), "99-zz-piimage.cfg"),
        (("05_logging.cfg", "90_dpkg.cfg"), "99-zz-piimage.cfg"),
        (("99-fake-cloud.cfg",), "99-zz-piimage.cfg"),
        (("99_raspberry-pi.cfg",), "99_zz-piimage.cfg"),
        (("99_zz_late.cfg",), "zz-piimage.cfg"),
        (("zz_site.cfg",), "~piimage.cfg"),
        (("zz_site.cfg.disabled", "README"), "99-zz-piimage.cfg"),
    ],
)
def test_our_settings_have_the_last_word(present, expected):
    files = {f"/etc/cloud/cloud.cfg.d/{name}": phony.text("") for name in present}

    path = cloudinit.drop_in(phony.with_files(phony.debian(), files))

    assert path == f"/etc/cloud/cloud.cfg.d/{expected}"
    assert all(f"{expected}" > name for name in present if name.endswith(".cfg"))


def test_dhcpcd_gets_the_address_after_the_bases_own_text():
    cluster = phony.cluster()
    part = network.image(cluster, phony.HEAD, dhcpcd())

    text = network.stamp(cluster, cluster.nodes[1], dhcpcd(), phony.secrets(cluster)).slots[
        "/etc/dhcpcd.conf"
    ].decode()  # fmt: skip

    assert text.startswith(STOCK)
    assert text.endswith("interface end0\nstatic ip_address=10.1.10.241/24\nnogateway\nnoipv6rs\n")
    assert "interface eth0\nstatic ip_address=10.1.10.241/24\n" in text
    assert not re.search(r"^static (routers|domain)", text, re.MULTILINE)
    assert part.delta.entries["/etc/dhcpcd.conf"] == Slot(8192, mode=0o664, gid=106)
    assert part.delta.entries["/etc/systemd/system/dhcpcd.service.d/wait.conf"] == Absent()
    wire = file_at(part.delta.entries, "/etc/sysctl.d/60-piimage-wire.conf")
    assert wire.content == b"net.ipv6.conf.eth0.accept_ra = 0\nnet.ipv6.conf.end0.accept_ra = 0\n"
    assert part.enable == ("dhcpcd.service",)


def test_dhcpcds_allowed_ports_stand_before_any_interface():
    odd = "hostname\ninterface usb0\nstatic ip_address=1.2.3.4/24\n"

    text = network_dhcpcd.config_text(odd, phony.cluster(), phony.cluster().nodes[0])

    assert text.index("allowinterfaces eth0 end0 wlan0") < text.index("interface usb0")
    assert text == network_dhcpcd.config_text(odd, phony.cluster(), phony.cluster().nodes[0])


@pytest.mark.parametrize(
    ("ssid", "expected"),
    [
        ("lab", 'ssid="lab"'),
        ('a"b', "ssid=612262"),
        ("Café", "ssid=436166c3a9"),
        (" x", "ssid=2078"),
    ],
)
def test_wpa_supplicant_gets_country_hash_and_ssid(ssid, expected):
    text = network_dhcpcd.supplicant_text(replace(phony.WIFI, ssid=ssid, hidden=True), phony.PSK)

    assert f"\t{expected}\n" in text
    assert f"\tpsk={phony.PSK}\n" in text
    assert "country=IT\n" in text
    assert "\tscan_ssid=1\n" in text


def test_dhcpcd_cannot_name_a_port_by_its_mac_and_says_so_before_anything_is_made():
    cluster = phony.cluster()
    nodes = (replace(cluster.nodes[0], mac="dc:a6:32:00:00:01"), *cluster.nodes[1:])

    with pytest.raises(UnsupportedError, match="`node0` names its wired port by `mac`"):
        network.image(replace(cluster, nodes=nodes), phony.HEAD, dhcpcd())


def test_an_old_netplan_is_not_told_the_country_which_it_would_refuse():
    cluster = phony.cluster()

    def keys(version):
        facts = replace(phony.debian(), packages={"netplan.io": version})
        network_config = network.stamp(
            cluster, cluster.nodes[0], facts, phony.secrets(cluster)
        ).network
        return set(network_config["wifis"]["wlan0"])

    assert "regulatory-domain" not in keys("0.104-0ubuntu2")
    assert "regulatory-domain" in keys("0.106.1-7ubuntu0.22.04.4")
    assert "regulatory-domain" in keys("1.1.2-7")


def test_the_radios_of_all_boards_are_on():
    entries = network.image(phony.cluster(), phony.HEAD, manager()).delta.entries

    for radio in ("1001100000.mmc", "fe300000.mmcnr", "3f300000.mmcnr"):
        assert entries[f"/var/lib/systemd/rfkill/platform-{radio}:wlan"] == File(b"0\n")
