"""Identity, localisation, ssh, time, boot target, cloud-init and the trimming of slots."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace

import phony_facts as phony
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from piimage.components import (
    boot,
    cloudinit,
    emit,
    identity,
    localisation,
    slots,
    ssh,
    timesync,
    trim,
)
from piimage.delta import Absent, File, Symlink
from piimage.errors import UnsupportedError


def image(component, *, facts=None, role=phony.HEAD, **more):
    return component.image(phony.cluster(**more), role, facts or phony.debian())


def stamp(component, *, number=1, facts=None, **more):
    cluster = phony.cluster(**more)
    node = cluster.nodes[number]
    return component.stamp(cluster, node, facts or phony.debian(), phony.secrets(cluster))


def content(part, path):
    return part.delta.entries[path].content.decode()


def test_hosts_name_all_nodes_by_their_wired_address():
    text = stamp(identity, domain="lab.internal").slots["/etc/hosts"].decode()

    assert "127.0.1.1" not in text
    assert "10.1.10.240 node0.lab.internal node0\n" in text
    assert text.startswith("127.0.0.1 localhost\n")


def test_names_go_to_cloud_init():
    data = stamp(identity).user_data

    assert (data["hostname"], data["manage_etc_hosts"]) == ("node1", False)
    assert "fqdn" not in data
    assert stamp(identity, domain="lab").user_data["fqdn"] == "node1.lab"


@pytest.mark.parametrize(
    ("now", "wanted"),
    [
        ("uninitialized\n", None),
        ("", None),
        ("ea82d40b2e634122b616937dea002acd\n", b"uninitialized\n"),
    ],
)
def test_no_machine_id_is_baked_and_none_is_emptied(now, wanted):
    facts = phony.with_files(phony.debian(), {"/etc/machine-id": phony.text(now, 0o444)})

    entry = image(identity, facts=facts).delta.entries.get("/etc/machine-id")

    assert entry == (File(wanted, mode=0o444) if wanted else None)


def test_a_copied_dbus_id_goes_and_a_link_stays():
    path = "/var/lib/dbus/machine-id"
    copied = phony.with_files(phony.debian(), {path: phony.text("ea82\n")})
    linked = phony.with_files(phony.debian(), {path: phony.link("/etc/machine-id")})

    assert image(identity, facts=copied).delta.entries[path] == Absent()
    assert path not in image(identity, facts=linked).delta.entries


def test_nothing_asks_on_the_console():
    assert image(identity).mask == ("systemd-firstboot.service",)


def test_zone_is_a_link_and_the_old_file_only_where_it_stands():
    entries = image(localisation).delta.entries
    old = phony.with_files(phony.debian(), {"/etc/timezone": phony.text("Etc/UTC\n")})

    assert entries["/etc/localtime"] == Symlink("/usr/share/zoneinfo/Europe/Rome")
    assert "/etc/timezone" not in entries
    assert content(image(localisation, facts=old), "/etc/timezone") == "Europe/Rome\n"


@pytest.mark.parametrize("zones", [frozenset(), frozenset({"UTC"})])
def test_a_zone_that_is_not_there_is_refused(zones):
    with pytest.raises(UnsupportedError, match="`Europe/Rome`"):
        image(localisation, facts=replace(phony.debian(), timezones=zones))


def test_a_compiled_locale_is_set_offline():
    facts = replace(phony.debian(), locales=frozenset({"it_IT.utf8"}))
    part = image(localisation, facts=facts, locale="it_IT.UTF-8")

    assert content(part, "/etc/locale.conf") == 'LANG="it_IT.UTF-8"\n'
    assert part.deferred == ()
    assert stamp(localisation, facts=facts, locale="it_IT.UTF-8").user_data == {}


@pytest.mark.parametrize(
    ("version", "present", "written"),
    [
        ("252.39-1~deb12u1", {"/etc/default/locale"}, {"/etc/default/locale"}),
        ("257.13-1~deb13u1", {"/etc/default/locale"}, {"/etc/default/locale", "/etc/locale.conf"}),
        ("252.39-1~deb12u1", {"/etc/default/locale", "/etc/locale.conf"},
         {"/etc/default/locale", "/etc/locale.conf"}),
        ("257.13-1~deb13u1", {"/etc/locale.conf"}, {"/etc/locale.conf"}),
    ],
)  # fmt: skip
def test_lang_is_in_every_file_that_a_boot_may_read(version, present, written):
    """From Debian 13 on each boot makes /etc/default/locale a link, whatever was written there."""
    facts = phony.debian()
    files = {k: v for k, v in facts.files.items() if k not in localisation._LOCALE_FILES}
    files |= {path: phony.text("LANG=en_GB.UTF-8\n") for path in present}
    packages = {**facts.packages, "systemd": version}
    part = image(localisation, facts=replace(facts, files=files, packages=packages))

    assert set(localisation._LOCALE_FILES) & set(part.delta.entries) == written
    assert all(content(part, path) == 'LANG="C.UTF-8"\n' for path in written)


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ("../locale.conf", "/etc/locale.conf"),
        ("../../../../../etc/locale.conf", "/etc/locale.conf"),
        ("//etc/./locale.conf", "/etc/locale.conf"),
        ("../../usr/lib/os-release", "/etc/default/locale /etc/locale.conf"),
        ("../shadow", "/etc/default/locale /etc/locale.conf"),
        ("../../../../../../../../..", "/etc/default/locale /etc/locale.conf"),
    ],
)
def test_of_links_only_debians_own_is_followed_for_the_locale(target, wanted):
    facts = phony.with_files(phony.debian(), {"/etc/default/locale": phony.link(target)})
    facts = replace(facts, packages={"systemd": "252.39-1~deb12u1"})

    assert localisation.locale_files(facts) == tuple(wanted.split())


def test_a_missing_locale_waits_for_the_first_boot_and_says_so():
    part = image(localisation, locale="it_IT.UTF-8")

    assert content(part, "/etc/locale.gen") == "it_IT.UTF-8 UTF-8\n# de_DE.UTF-8 UTF-8\n"
    assert "/etc/locale.conf" not in part.delta.entries
    assert part.deferred == ("the locale it_IT.UTF-8 is generated at first boot by cloud-init",)
    assert stamp(localisation, locale="it_IT.UTF-8").user_data == {"locale": "it_IT.UTF-8"}


def test_a_locale_that_nothing_can_make_is_refused():
    with pytest.raises(UnsupportedError, match=r"no locale `it_IT\.UTF-8`"):
        image(localisation, facts=replace(phony.debian(), packages={}), locale="it_IT.UTF-8")


def test_keymap_edits_the_bases_file_and_drops_the_compiled_copy():
    part = image(localisation, keymap="de:nodeadkeys")

    assert content(part, "/etc/default/keyboard") == (
        'XKBMODEL="pc105"\nXKBLAYOUT="de"\nXKBVARIANT="nodeadkeys"\n'
    )
    assert part.delta.entries["/etc/console-setup/cached_setup_keyboard.sh"] == Absent()


def test_a_keymap_that_the_base_has_keeps_its_compiled_copy():
    part = image(localisation, keymap="us")

    assert not {"/etc/default/keyboard", "/etc/console-setup/cached_setup_keyboard.sh"} & set(
        part.delta.entries
    )


def test_sshd_offers_one_certified_key_and_what_was_asked():
    text = content(image(ssh), "/etc/ssh/sshd_config.d/10-piimage.conf")

    assert "HostKey /etc/ssh/ssh_host_ed25519_key\n" in text
    assert "HostCertificate /etc/ssh/ssh_host_ed25519_key-cert.pub\n" in text
    assert "PasswordAuthentication yes\n" in text
    assert "X11Forwarding no\n" in text
    assert image(ssh).mask == ("sshd-keygen.service",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"units": {}}, "no ssh server"),
        ({"packages": {}}, "needs the package xauth"),
    ],
)
def test_what_ssh_needs_of_a_base(change, message):
    x11 = replace(phony.cluster().ssh, x11_forwarding=True)

    with pytest.raises(UnsupportedError, match=message):
        image(ssh, facts=replace(phony.debian(), **change), ssh=x11)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("50-cloud-init.conf", "sshd_config.d/10-piimage.conf"),
        ("01-permitrootlogin.conf", "sshd_config.d/00-piimage.conf"),
        ("00-a.conf", "sshd_config.d/0-piimage.conf"),
        ("00-a.conf.bak", "sshd_config.d/10-piimage.conf"),
        ("10-piimage.conf", "sshd_config.d/10-piimage.conf"),
        ("#.conf", "sshd_config"),
    ],
)
def test_our_settings_of_sshd_have_the_first_word(theirs, ours):
    path = f"/etc/ssh/sshd_config.d/{theirs}"
    facts = phony.with_files(phony.debian(), {path: phony.text("PermitRootLogin yes\n")})

    text = content(image(ssh, facts=facts), f"/etc/ssh/{ours}")

    assert text.startswith("HostKey /etc/ssh/")


@pytest.mark.parametrize(
    ("stock", "read_first"),
    [
        ("# Match\nPort 22\nInclude /etc/ssh/sshd_config.d/*.conf\n", True),
        ("  include = /etc/ssh/a.conf /etc/ssh/sshd_config.d/*.conf\nPermitRootLogin yes\n", True),
        ("#PermitRootLogin no\nInclude /etc/ssh/sshd_config.d/*.conf\n", True),
        ("Match User git\n  Include /etc/ssh/sshd_config.d/*.conf\n", False),
        ("PermitRootLogin yes\nInclude /etc/ssh/sshd_config.d/*.conf\n", False),
    ],
)
def test_a_drop_in_is_made_only_where_it_is_read_first(stock, read_first):
    facts = phony.with_files(phony.debian(), {"/etc/ssh/sshd_config": phony.text(stock)})

    entries = image(ssh, facts=facts).delta.entries

    assert ("/etc/ssh/sshd_config.d/10-piimage.conf" in entries) == read_first
    assert ("/etc/ssh/sshd_config" in entries) != read_first


@pytest.mark.parametrize("include", ["", "#Include /etc/ssh/sshd_config.d/*.conf\n"])
def test_a_server_without_drop_ins_has_our_settings_first_and_no_other_host_key(include):
    stock = f"{include}HostKey /etc/ssh/ssh_host_rsa_key\nUsePAM yes\n"
    facts = phony.with_files(phony.debian(), {"/etc/ssh/sshd_config": phony.text(stock)})

    part = image(ssh, facts=facts)

    drop_in = content(image(ssh), "/etc/ssh/sshd_config.d/10-piimage.conf")
    assert content(part, "/etc/ssh/sshd_config") == (
        f"{drop_in}\n{include}#HostKey /etc/ssh/ssh_host_rsa_key\nUsePAM yes\n"
    )
    assert "/etc/ssh/sshd_config.d/10-piimage.conf" not in part.delta.entries


def test_known_hosts_trusts_the_ca_for_names_and_addresses():
    text = stamp(ssh, domain="lab").slots[slots.KNOWN_HOSTS].decode().splitlines()

    marker, hosts, kind, key = text[0].split()
    assert (marker, kind, key) == ("@cert-authority", "ssh-ed25519", "AAAAC3ca")
    assert {"node0", "node2.lab", "10.1.10.241"} <= set(hosts.split(","))
    assert text[1] == "node0,node0.lab,10.1.10.240 ssh-ed25519 AAAAC3publicnode0"


def test_head_serves_time_and_workers_follow():
    head = content(image(timesync), "/etc/chrony/conf.d/10-piimage.conf")
    worker = content(image(timesync, role=phony.WORKER), "/etc/chrony/conf.d/10-piimage.conf")

    assert head == (
        "pool pool.ntp.org iburst\nallow 10.1.10.0/24\nlocal stratum 10\nmakestep 1 -1\nrtconutc\n"
    )
    assert worker == "server 10.1.10.240 iburst prefer\nmakestep 1 -1\nrtconutc\n"


def test_a_worker_with_wifi_also_asks_the_world():
    role = replace(phony.WORKER, wifi=True)
    text = content(
        image(timesync, role=role, ntp_servers=("192.0.2.1",)), "/etc/chrony/conf.d/10-piimage.conf"
    )

    assert "server 192.0.2.1 iburst\n" in text


def test_stock_lines_that_would_win_are_commented_out():
    part = image(timesync)
    lines = content(part, "/etc/chrony/chrony.conf").splitlines()

    assert "#pool 2.debian.pool.ntp.org iburst" in lines
    assert "#makestep 1 3" in lines
    assert "confdir /etc/chrony/conf.d" in lines
    assert "sourcedir /run/chrony-dhcp" in lines
    assert 'DAEMON_OPTS="-F 1 -s"' in content(part, "/etc/default/chrony")


def test_a_chrony_without_drop_ins_has_it_all_in_its_own_file():
    """Before 4.0, as in buster; the last line of a kind counts there."""
    base = phony.debian()
    stock = "pool pool.example iburst\nmakestep 1 3"
    facts = phony.with_files(base, {"/etc/chrony/chrony.conf": phony.text(stock)})
    facts = replace(facts, packages={**base.packages, "chrony": "3.4-4+deb10u2"})

    part = image(timesync, facts=facts)

    drop_in = content(image(timesync), "/etc/chrony/conf.d/10-piimage.conf")
    assert content(part, "/etc/chrony/chrony.conf") == (
        f"#pool pool.example iburst\n#makestep 1 3\n{drop_in}"
    )
    assert not [path for path in part.delta.entries if "conf.d" in path]


def test_clock_seed_is_the_bases_own_time():
    assert image(timesync).delta.entries["/usr/lib/clock-epoch"] == File(b"", mtime=phony.MADE)
    undated = replace(phony.debian(), made=None)
    assert "/usr/lib/clock-epoch" not in image(timesync, facts=undated).delta.entries


def test_target_is_a_link():
    entry = image(boot).delta.entries["/etc/systemd/system/default.target"]

    assert entry == Symlink("/usr/lib/systemd/system/multi-user.target")


def test_graphical_needs_the_head_and_a_display_manager():
    worker = replace(phony.DESKTOP, head=False, name="worker")

    assert image(boot, role=phony.DESKTOP, facts=phony.raspios())
    with pytest.raises(UnsupportedError, match="no display manager"):
        image(boot, role=phony.DESKTOP)
    with pytest.raises(UnsupportedError, match="only the head has"):
        image(boot, role=worker, facts=phony.raspios())


def test_drop_in_is_read_the_same_by_ds_identify_and_by_yaml():
    text = content(image(cloudinit), cloudinit.drop_in(phony.debian()))
    data = yaml.safe_load(text)

    assert text.startswith("datasource_list: [NoCloud, None]\n")
    assert data["datasource_list"] == ["NoCloud", "None"]
    assert data["datasource"] == {"NoCloud": {"seedfrom": None, "fs_label": None}}
    assert (data["ssh_genkeytypes"], data["users"], data["locale"]) == ([], [], False)


def test_a_base_without_cloud_init_is_refused():
    with pytest.raises(UnsupportedError, match="no cloud-init"):
        image(cloudinit, facts=replace(phony.debian(), cloud_init=None))


def test_user_data_opens_with_the_magic_line():
    text = emit.cloud_config({"b": 1, "a": "NO"})

    assert text == b"#cloud-config\na: 'NO'\nb: 1\n"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(min_size=1, max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text(min_size=1, max_size=6), values, max_size=4))
def test_whatever_is_emitted_is_read_back(data):
    assert yaml.safe_load(emit.cloud_config(data)) == data


def test_trimming_strips_padding_keeps_mode_and_runs_to_the_end(tmp_path):
    key, empty = tmp_path / "key with space", tmp_path / "hosts"
    key.write_text("-----BEGIN\n\nkey\n-----END\n" + "\n" * 4000)
    key.chmod(0o600)
    empty.write_text("\n" * 4096)
    listed = tmp_path / "slots"
    listed.write_text(f"{key}\n{tmp_path / 'gone'}\n{empty}\n")
    done = tmp_path / "lib" / "trimmed"
    part = trim.image(["/etc/hosts"])
    script = content(part, "/usr/lib/piimage/trim-slots")
    script = script.replace("/usr/lib/piimage/slots", str(listed))
    script = script.replace("/var/lib/piimage", str(done.parent))

    subprocess.run(["sh", "-c", script], check=True, env={**os.environ, "LC_ALL": "C"})

    assert key.read_text() == "-----BEGIN\n\nkey\n-----END\n"
    assert key.stat().st_mode & 0o777 == 0o600
    assert empty.read_text() == "\n"
    assert done.exists()
    assert not list(tmp_path.glob("*.piimage-trim"))


def test_trimming_comes_before_all_that_reads_slots():
    part = trim.image(["/etc/hosts", "/etc/a"])
    unit = content(part, "/etc/systemd/system/piimage-trim.service")

    assert content(part, "/usr/lib/piimage/slots") == "/etc/a\n/etc/hosts\n"
    assert "Before=cloud-init-main.service cloud-init-local.service ssh.service" in unit
    assert "ConditionPathExists=!/var/lib/piimage/trimmed" in unit


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        (
            "/etc/cloud/cloud.cfg.d/99-disable-network-config.cfg",
            "network: {config: disabled}\n",
            True,
        ),
        ("/etc/cloud/cloud.cfg", "users: []\n'network' :\n  version: 2\n", True),
        ("/etc/cloud/cloud.cfg.d/50-x.cfg", "# network: x\nsystem_info:\n  network: {}\n", False),
        ("/etc/cloud/cloud.cfg.d/50-x.cfg.off", "network: {config: disabled}\n", False),
    ],
)
def test_what_settings_say_of_the_network_does_not_go_before_the_seed(path, text, said):
    facts = phony.with_files(phony.debian(), {path: phony.text(text)})
    manager = replace(facts, network_stack="networkmanager")

    ours = yaml.safe_load(content(image(cloudinit, facts=facts), cloudinit.drop_in(facts)))
    theirs = yaml.safe_load(content(image(cloudinit, facts=manager), cloudinit.drop_in(facts)))

    assert ("network" in ours, ours.get("network")) == (said, None)
    assert theirs["network"] == {"config": "disabled"}


def test_what_an_upgrade_left_does_not_hide_the_seeds_network():
    path = "/var/lib/cloud/data/upgraded-network"
    facts = phony.with_files(phony.debian(), {path: phony.text("")})

    assert image(cloudinit, facts=facts).delta.entries[path] == Absent()
    assert path not in image(cloudinit).delta.entries


def test_a_network_on_the_command_line_goes():
    path = "/boot/firmware/cmdline.txt"
    facts = phony.with_files(phony.debian(), {path: phony.text("rw network-config=disabled\n")})

    assert image(cloudinit, facts=facts).cmdline_drop == ("network-config",)
