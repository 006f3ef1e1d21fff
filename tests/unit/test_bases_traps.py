"""What makes a vendor's card boot half configured, each by its name, over images laid out like the vendors'.

traps.py lists them all, of every image, with the tests and rules that hold each, here and elsewhere.
"""

from __future__ import annotations

import re
from dataclasses import replace

import phony_facts as phony
import pytest
import yaml
from delta_files import file_at
from fixtures import debian_raspi, raspios, ubuntu
from fixtures.card import text
from fixtures.facts_of import facts_of
from traps import TRAPS

from piimage import resolve, stamping
from piimage.cluster import Mpi, Overlay, SecretRef, Share, Sudo
from piimage.components import cloudinit, slots, stand_ins, users
from piimage.delta import Absent, Directory, File, Symlink
from piimage.distros.firmware_config import cmdline_path
from piimage.distros.packages import real_names
from piimage.distros.system import recognise
from piimage.errors import ConfigError, UnsupportedError
from piimage.plan import plan, recipe
from piimage.verify.catalog import RULES

CARDS = {
    "trixie": raspios.trixie(),
    "trixie-first": raspios.trixie(raspios.Choice(date="2025-10-01")),
    "trixie-armhf": raspios.trixie(raspios.Choice("armhf", date="2025-12-04", user="hans")),
    "bookworm": raspios.bookworm(),
    "bookworm-desktop": raspios.bookworm(raspios.Choice("armhf", "desktop", disk_id="0badc0de")),
    "bullseye": raspios.bullseye(),
    "bullseye-early": raspios.bullseye(raspios.Choice("armhf", date="2022-01-28")),
    "buster": raspios.buster(raspios.Choice("armhf", date="2023-05-03", disk_id="3a2b1c0d")),
    "jammy": ubuntu.jammy(),
    "noble": ubuntu.noble(),
    "resolute": ubuntu.resolute(),
    "raspi-12": debian_raspi.bookworm(),
    "raspi-13": debian_raspi.trixie(debian_raspi.Choice(family=3, disk_id="00c0ffee")),
}
FACTS = {name: facts_of(card) for name, card in CARDS.items()}
RASPIOS = [name for name, card in CARDS.items() if card.name.startswith("raspios")]
WITH_WIZARD = [name for name in RASPIOS if name not in ("bullseye-early", "buster")]
WITH_FIRSTBOOT = ["bookworm", "bookworm-desktop", "bullseye"]
UBUNTU = ["jammy", "noble", "resolute"]
DEBIAN = ["raspi-12", "raspi-13"]
SHA512 = "$6$salt$" + "h" * 86
PRESET = "/etc/systemd/system-preset/10-piimage.preset"


def test_every_trap_is_held_by_tests_and_rules_that_are_there(request):
    tests = request.config.rootpath / "tests"
    there = {
        name
        for path in tests.glob("*/test_*.py")
        for name in re.findall(r"^def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    broken = (tests / "integration/mutations.py").read_text(encoding="utf-8")
    broken += (tests / "unit/test_verify.py").read_text(encoding="utf-8")

    for trap in TRAPS:
        named = [held for held in trap.held if held.startswith("test_")]
        rules = set(trap.held) - set(named)
        assert named, f"{trap.where}: {trap.what}: a rule without a test in code"
        assert set(named) <= there, trap
        assert rules <= set(RULES), trap
        assert all(rule in broken for rule in rules), trap


def test_no_trap_of_this_file_is_missing_in_the_list():
    listed = {held for trap in TRAPS for held in trap.held}
    own = {name for name in globals() if name.startswith("test_")}

    assert {name for name in own - listed if "trap" not in name} == set()


def cluster(**more):
    return phony.cluster(**more)


def variant(name, **more):
    return plan.plan_variant(cluster(**more), phony.HEAD, FACTS[name])


def stamp(name, **more):
    made = cluster(**more)
    secrets = phony.secrets(made, passwords={"federico": SHA512})
    planned = plan.plan_variant(made, made.nodes[0].role, FACTS[name])
    return plan.plan_stamp(made, made.nodes[0], FACTS[name], planned, "f" * 64, secrets)


def entries(name, **more):
    return variant(name, **more).delta.entries


@pytest.mark.parametrize("name", CARDS)
def test_every_slot_is_filled_over_every_base(name):
    assert set(stamp(name).slots) == set(variant(name).slots)


@pytest.mark.parametrize("name", CARDS)
def test_the_command_line_stays_one_line_and_keeps_what_the_first_boot_reads(name):
    facts = FACTS[name]
    before = facts.text(cmdline_path(facts)).split()

    after = entries(name)[cmdline_path(facts)].content.decode()

    assert after.count("\n") == 1
    assert after.endswith(" cfg80211.ieee80211_regdom=IT\n")
    assert after.split()[: len(before)] == before


@pytest.mark.parametrize("name", ["trixie", "trixie-armhf", "bookworm", "bookworm-desktop"])
def test_decoys_on_the_root_are_not_what_is_edited(name):
    assert CARDS[name].root["/boot/cmdline.txt"].content.startswith(b"DO NOT EDIT")
    assert not {p for p in entries(name) if re.fullmatch(r"/boot/[^/]+\.txt", p)}


def test_a_command_line_that_nobody_reads_is_left_alone():
    assert "/boot/firmware/cmdline.txt" not in entries("resolute")


def test_the_staged_boot_files_are_left_to_the_system():
    assert not [p for p in entries("resolute") if "/new/" in p or "/old/" in p]


@pytest.mark.parametrize("name", RASPIOS)
def test_the_disk_signature_is_left_to_the_first_boot_where_partuuids_name_it(name):
    assert stamping._names_partuuid(FACTS[name])


@pytest.mark.parametrize("name", [*UBUNTU, *DEBIAN])
def test_cards_of_one_image_get_signatures_of_their_own(name):
    assert not stamping._names_partuuid(FACTS[name])


@pytest.mark.parametrize("name", CARDS)
def test_the_machine_id_stays_as_the_vendor_left_it(name):
    assert "/etc/machine-id" not in entries(name)


@pytest.mark.parametrize("name", ["trixie", "trixie-armhf"])
def test_what_grows_the_root_at_first_boot_stays_enabled(name):
    found = entries(name)
    assert b"enable rpi-resize.service\n" in found[PRESET].content
    assert "/etc/systemd/system/sysinit.target.wants/rpi-resize.service" not in found


@pytest.mark.parametrize("name", WITH_FIRSTBOOT)
def test_the_first_boots_script_does_not_remove_the_nodes_host_keys(name):
    script = entries(name)["/usr/lib/raspberrypi-sys-mods/regenerate_ssh_host_keys"]

    assert script.mode == 0o755
    assert b"rm " not in script.content
    assert b"ssh-keygen" not in script.content


@pytest.mark.parametrize("name", RASPIOS)
def test_the_unit_that_makes_host_keys_is_masked(name):
    path = "/etc/systemd/system/regenerate_ssh_host_keys.service"
    assert entries(name)[path] == Symlink("/dev/null")


@pytest.mark.parametrize("name", WITH_WIZARD)
def test_the_wizard_asks_nobody_and_the_console_is_free(name):
    found = entries(name)

    assert found["/etc/systemd/system/userconfig.service"] == Symlink("/dev/null")
    assert found["/etc/ssh/sshd_config.d/rename_user.conf"] == Absent()
    assert "/etc/systemd/system/getty.target.wants/getty@tty1.service" in found


@pytest.mark.parametrize("name", RASPIOS)
def test_the_base_user_becomes_ours_with_a_shell_and_without_a_trace(name):
    old = "hans" if name == "trixie-armhf" else "pi"
    found = entries(name)

    line = re.search(r"^federico:.*$", found["/etc/passwd"].content.decode(), re.MULTILINE)[0]
    assert line == "federico:x:1000:1000::/home/federico:/bin/bash"
    for path, entry in found.items():
        if isinstance(entry, File) and path.startswith("/etc/"):
            assert not re.search(rf"\b{old}\b", entry.content.decode()), path
    mine = found["/etc/sudoers.d/010_federico"].content.decode()
    assert "NOPASSWD" in mine


def test_privileges_without_a_password_end_with_the_user_who_had_them():
    found = entries("bookworm", users=(phony.user(rename_from="auto", sudo=Sudo.PASSWORD),))

    assert found["/etc/sudoers.d/010_pi-nopasswd"] == Absent()
    assert not [p for p in found if p.startswith("/etc/sudoers.d/") and found[p] != Absent()]


@pytest.mark.parametrize("name", UBUNTU)
def test_an_image_without_users_gets_ours_and_no_ubuntu(name):
    found = entries(name)

    assert "federico:x:1000:1000:" in found["/etc/passwd"].content.decode()
    settings = yaml.safe_load(found[cloudinit.drop_in(FACTS[name])].content)
    assert settings["users"] == []
    assert settings["datasource"]["NoCloud"] == {"seedfrom": None, "fs_label": None}


@pytest.mark.parametrize("name", CARDS)
def test_our_cloud_init_settings_have_the_last_word_over_the_vendors(name):
    theirs = [p for p in CARDS[name].root if p.startswith("/etc/cloud/cloud.cfg.d/")]

    assert max([*theirs, cloudinit.drop_in(FACTS[name])]) == cloudinit.drop_in(FACTS[name])


@pytest.mark.parametrize("name", CARDS)
def test_the_instance_id_has_the_key_that_cloud_init_knows(name):
    meta = yaml.safe_load(stamp(name).slots[slots.META_DATA])

    assert meta["instance-id"].startswith("piimage-pico5-node0-")
    assert "instance_id" not in meta


@pytest.mark.parametrize("name", RASPIOS)
def test_the_radios_are_switched_on(name):
    found = entries(name)

    for radio in ("1001100000.mmc", "fe300000.mmcnr", "3f300000.mmcnr"):
        assert found[f"/var/lib/systemd/rfkill/platform-{radio}:wlan"].content == b"0\n"
    state = found.get("/var/lib/NetworkManager/NetworkManager.state")
    assert (state is None) == name.startswith(("bullseye", "buster"))
    assert state is None or b"WirelessEnabled=true" in state.content


def test_networkmanager_on_board_and_not_in_force_configures_nothing():
    found = entries("bullseye")

    assert FACTS["bullseye"].network_stack == "dhcpcd"
    assert not [p for p in found if "NetworkManager" in p and "preset" not in p]
    assert {"/etc/dhcpcd.conf", "/etc/wpa_supplicant/wpa_supplicant.conf"} <= set(found)
    assert found["/etc/systemd/system/dhcpcd.service.d/wait.conf"] == Absent()


@pytest.mark.parametrize("name", ["noble", "resolute"])
def test_ssh_is_a_service_where_the_vendor_had_a_socket(name):
    found = entries(name)

    assert found["/etc/systemd/system/sockets.target.wants/ssh.socket"] == Absent()
    assert found["/etc/systemd/system/ssh.service.requires/ssh.socket"] == Absent()
    assert found["/etc/systemd/system/ssh.service.d/00-socket.conf"] == Absent()
    assert "/etc/systemd/system/multi-user.target.wants/ssh.service" in found


def test_a_password_that_everybody_knows_opens_nothing():
    """`raspberry`, up to 2022-01: also where nobody takes `pi` over."""
    assert facts_shadow("bullseye-early", "pi").startswith("$6$")

    found = entries("bullseye-early", users=(phony.user("ada", 1001),))

    shadow = found["/etc/shadow"].content.decode()
    assert re.search(r"^pi:[!*]:", shadow, re.MULTILINE)
    assert re.search(r"^ada:!:", shadow, re.MULTILINE)


def facts_shadow(name, user):
    return re.search(rf"^{user}:([^:]*):", FACTS[name].text("/etc/shadow"), re.MULTILINE)[1]


def test_an_ssh_that_reads_no_drop_ins_has_it_all_in_its_own_files():
    """Buster's, OpenSSH 7.9: what comes first counts."""
    found = entries("buster")

    server = found["/etc/ssh/sshd_config"].content.decode()
    assert server.startswith("HostKey /etc/ssh/ssh_host_ed25519_key\n")
    assert server.index("X11Forwarding no") < server.index("X11Forwarding yes")
    assert server.endswith(FACTS["buster"].text("/etc/ssh/sshd_config"))
    client = found["/etc/ssh/ssh_config"].content.decode()
    assert client.startswith("Include /etc/ssh/ssh_config.d/*.conf\n")
    assert not [path for path in found if "sshd_config.d" in path]


@pytest.mark.parametrize("name", RASPIOS)
def test_ssh_is_on_where_the_vendor_had_it_off(name):
    assert "/etc/systemd/system/multi-user.target.wants/ssh.service" in entries(name)


@pytest.mark.parametrize("name", CARDS)
def test_only_one_keeps_the_time(name):
    found = entries(name)

    assert "/etc/systemd/system/multi-user.target.wants/chrony.service" in found
    if "systemd-timesyncd.service" in FACTS[name].units:
        gone = "/etc/systemd/system/sysinit.target.wants/systemd-timesyncd.service"
        assert found[gone] == Absent()


def test_the_vendors_own_time_servers_go():
    found = entries("resolute")

    assert found["/etc/chrony/sources.d/ubuntu-ntp-pools.sources"] == Absent()
    settings = b"".join(
        e.content for p, e in found.items() if p.startswith("/etc/chrony") and isinstance(e, File)
    )
    assert b"\npool pool.ntp.org iburst\n" in settings
    assert b" nts" not in settings


def test_gpio_is_dialouts_on_ubuntu():
    members = {
        line.split(":")[0]: line.split(":")[3]
        for line in entries("noble")["/etc/group"].content.decode().splitlines()
    }
    assert members["dialout"] == "federico"
    assert "gpio" not in members


STOCK = {
    "trixie": raspios.trixie(raspios.Choice(baked=False)),
    "bookworm": raspios.bookworm(raspios.Choice(baked=False)),
    "bullseye": raspios.bullseye(raspios.Choice("armhf", date="2023-05-03", baked=False)),
    "buster": raspios.buster(raspios.Choice("armhf", date="2021-05-07", baked=False)),
    "jammy": ubuntu.jammy(with_packages=False),
    "noble": ubuntu.noble(with_packages=False),
    "resolute": ubuntu.resolute(with_packages=False),
    "raspi-12": debian_raspi.bookworm(debian_raspi.Choice(baked=False)),
    "raspi-13": debian_raspi.trixie(debian_raspi.Choice(baked=False)),
}
LACKING = {
    "trixie": {"nfs-common", "chrony"},
    "bookworm": {"cloud-init", "chrony"},
    "bullseye": {"cloud-init", "chrony"},
    "buster": {"cloud-init", "chrony"},
    "jammy": {"nfs-common", "chrony"},
    "noble": {"nfs-common", "chrony"},
    "resolute": {"nfs-common"},
    "raspi-12": {"cloud-init", "chrony", "nfs-common", "sudo", "cloud-guest-utils"},
    "raspi-13": {"cloud-init", "chrony", "nfs-common", "sudo", "cloud-guest-utils"},
}


@pytest.mark.parametrize("name", STOCK)
def test_what_a_stock_image_lacks_is_asked_of_its_archive(name):
    facts = facts_of(STOCK[name])
    missing = {"openmpi-bin", "gcc", "nfs-kernel-server", "pssh"} | LACKING[name]
    share = Share(path="/srv/cluster", server="node0")
    head = replace(phony.HEAD, serves=("/srv/cluster",))
    full = cluster(shares=(share,), mpi=Mpi(), head=head)
    wanted = {
        name
        for node in full.nodes[:2]
        for name in real_names(recipe.wanted_packages(full, node.role, facts), facts)
    }

    assert missing <= wanted
    assert not wanted & set(facts.packages)


def test_an_old_cloud_init_gets_the_hashes_in_a_list():
    data = yaml.safe_load(stamp("jammy").slots[slots.USER_DATA])

    assert data["chpasswd"] == {"expire": False, "list": [f"federico:{SHA512}"]}


@pytest.mark.parametrize("name", ["trixie", "bookworm", "noble"])
def test_a_newer_one_is_told_that_it_is_a_hash(name):
    data = yaml.safe_load(stamp(name).slots[slots.USER_DATA])

    users_ = [{"name": "federico", "password": SHA512, "type": "hash"}]
    assert data["chpasswd"] == {"expire": False, "users": users_}


@pytest.mark.parametrize("name", ["jammy", "bullseye", "bullseye-early", "buster"])
def test_a_hash_that_an_old_cloud_init_would_take_for_the_password_is_refused(name):
    made = cluster()

    with pytest.raises(UnsupportedError, match="does not know the method of the password hash of"):
        users.stamp(made, made.nodes[0], FACTS[name], phony.secrets(made))


def test_sixty_four_bit_raspberry_pi_os_is_not_debian():
    assert FACTS["bookworm"].os.id == "debian"
    assert recognise(FACTS["bookworm"]).words == "Raspberry Pi OS 12 (bookworm) Lite of 2026-06-18"


def test_a_file_below_the_fats_mount_point_belongs_to_the_fat():
    card = raspios.bullseye()
    below = replace(card, root={**card.root, "/boot/cmdline.txt": text("hidden at boot\n")})

    assert "hidden" not in facts_of(below).text("/boot/cmdline.txt")


@pytest.mark.parametrize("name", CARDS)
def test_no_secret_and_no_name_of_a_node_is_in_a_variant(name):
    for path, entry in entries(name).items():
        content = getattr(entry, "content", b"")
        assert phony.PSK.encode() not in content, path
        assert b"node0" not in content, path
        assert b"10.1.10.24" not in content, path


@pytest.mark.parametrize("name", CARDS)
def test_wifi_keys_lie_in_files_of_root_alone(name):
    filled, planned = stamp(name).slots, variant(name).slots
    holders = {path for path, content in filled.items() if phony.PSK.encode() in content}

    assert holders
    assert {(planned[p].mode, planned[p].uid) for p in holders} == {(0o600, 0)}


def customised(card):
    """An image that Raspberry Pi's Imager has been at."""
    tokens = (
        card.boot["cmdline.txt"].decode().strip()
        + " ds=nocloud;i=rpi-imager-1766 cloud-init=disabled"
    )
    boot = {
        **card.boot,
        "cmdline.txt": f"{tokens}\n".encode(),
        "custom.toml": b"config_version = 1\n",
    }
    root = {**card.root, "/etc/cloud/cloud-init.disabled": text("")}
    return facts_of(replace(card, boot=boot, root=root))


def test_what_overrides_the_seed_of_every_node_is_taken_out():
    facts = customised(raspios.trixie())

    found = plan.plan_variant(cluster(), phony.HEAD, facts).delta.entries

    line = file_at(found, "/boot/firmware/cmdline.txt").content.decode()
    assert line.endswith(" rootwait resize cfg80211.ieee80211_regdom=IT\n")
    assert found["/etc/cloud/cloud-init.disabled"] == Absent()
    assert found["/boot/firmware/custom.toml"] == Absent()


SCRIPTED = " systemd.run=/boot/firstrun.sh systemd.run_success_action=reboot systemd.unit=kernel-command-line.target"


@pytest.mark.parametrize("name", ["trixie", "bookworm", "bullseye", "buster"])
def test_the_script_of_an_older_imager_is_not_run_in_place_of_a_boot(name):
    """It would make users and a name of its own, and on trixie nothing of that and no boot either."""
    card, where = CARDS[name], FACTS[name].firmware
    line = card.boot["cmdline.txt"].decode().strip()
    boot = {"cmdline.txt": f"{line}{SCRIPTED}\n".encode(), "firstrun.sh": b"#!/bin/bash\n"}
    facts = facts_of(replace(card, boot={**card.boot, **boot}))

    found = plan.plan_variant(cluster(), phony.HEAD, facts).delta.entries

    after = file_at(found, f"{where}/cmdline.txt").content.decode()
    assert after == f"{line} cfg80211.ieee80211_regdom=IT\n"
    assert found[f"{where}/firstrun.sh"] == Absent()


def test_another_command_for_one_boot_is_left_to_whoever_wrote_it():
    card = CARDS["trixie"]
    line = card.boot["cmdline.txt"].decode().strip() + " systemd.run=/usr/bin/own"
    facts = facts_of(replace(card, boot={**card.boot, "cmdline.txt": f"{line}\n".encode()}))

    found = plan.plan_variant(cluster(), phony.HEAD, facts).delta.entries

    assert b" systemd.run=/usr/bin/own " in file_at(found, "/boot/firmware/cmdline.txt").content


def test_a_wifi_that_lies_on_the_fat_does_not_take_the_place_of_ours():
    card = CARDS["bullseye"]
    boot = {**card.boot, "wpa_supplicant.conf": b'network={ ssid="home" psk="their secret" }\n'}

    found = plan.plan_variant(cluster(), phony.HEAD, facts_of(replace(card, boot=boot)))

    assert found.delta.entries["/boot/wpa_supplicant.conf"] == Absent()


@pytest.mark.parametrize("name", CARDS)
def test_apt_keeps_the_sources_of_the_image(name):
    """cloud-init would write those of a template over them; Debian's package alone says that it must not."""
    settings = yaml.safe_load(entries(name)[cloudinit.drop_in(FACTS[name])].content)

    assert settings["apt"] == {"preserve_sources_list": True}


@pytest.mark.parametrize("name", CARDS)
def test_no_first_boot_wants_packages_or_a_network(name):
    """So a lock of dpkg, an archive that is gone and a port that is `optional` keep nobody waiting."""
    asked = set(yaml.safe_load(stamp(name).slots[slots.USER_DATA]))

    assert asked <= {
        "chpasswd", "disable_root", "fqdn", "hostname", "locale", "manage_etc_hosts", "no_ssh_fingerprints",
        "prefer_fqdn_over_hostname", "preserve_hostname", "ssh", "ssh_deletekeys",
    }  # fmt: skip


def sleeping(name, **state):
    """The facts of a card on which no link starts cloud-init, as Fedora's presets leave it."""
    facts = FACTS[name]
    quiet = {
        unit: replace(known, enabled=False, **state)
        for unit, known in facts.units.items()
        if unit in cloudinit.UNITS
    }
    assert len(quiet) >= 4
    return replace(facts, units={**facts.units, **quiet}), quiet


@pytest.mark.parametrize("name", ["trixie", "bookworm"])
def test_cloud_init_is_started_where_presets_have_left_it_off(name):
    facts, quiet = sleeping(name)

    found = plan.plan_variant(cluster(), phony.HEAD, facts).delta.entries

    preset = file_at(found, PRESET).content.decode()
    for unit in quiet:
        assert f"/etc/systemd/system/cloud-init.target.wants/{unit}" in found
        assert f"enable {unit}\n" in preset


def test_cloud_init_that_somebody_has_masked_is_refused():
    facts, _ = sleeping("trixie", masked=True)

    with pytest.raises(UnsupportedError, match=r"has `cloud-init-main\.service` masked"):
        plan.plan_variant(cluster(), phony.HEAD, facts)
    with pytest.raises(UnsupportedError, match=r"has `cloud-init-main\.service` masked"):
        recipe.refuse(cluster(), [phony.HEAD], facts)


DAILY = ("apt-daily.timer", "apt-daily-upgrade.timer", "unattended-upgrades.service")


def upgrading(name="noble"):
    facts = FACTS[name]
    units = {name: phony.service(name, wanted_by="timers.target", enabled=True) for name in DAILY}
    links = {f"/etc/systemd/system/timers.target.wants/{n}": phony.link(f"/x/{n}") for n in DAILY}
    return replace(phony.with_files(facts, links), units={**facts.units, **units})


@pytest.mark.parametrize("name", CARDS)
def test_no_node_upgrades_itself_and_so_locks_dpkg_at_its_first_boot(name):
    found = plan.plan_variant(cluster(), phony.HEAD, upgrading(name)).delta.entries

    preset = file_at(found, PRESET).content.decode()
    for unit in DAILY:
        assert found[f"/etc/systemd/system/timers.target.wants/{unit}"] == Absent()
        assert f"disable {unit}\n" in preset


@pytest.mark.parametrize(
    ("packages", "enabled", "kept"),
    [
        (("unattended-upgrades",), (), DAILY), ((), DAILY[:2], DAILY[:2]), (("htop",), (), ()),
    ],
)  # fmt: skip
def test_who_asks_for_upgrades_at_night_has_them(packages, enabled, kept):
    """By the package that makes them, or by a unit that an overlay enables."""
    overlay = Overlay(name="nightly", enable=enabled)
    head = replace(phony.HEAD, packages=packages, overlays=("nightly",))

    found = plan.plan_variant(cluster(head=head, overlays=(overlay,)), head, upgrading())

    preset = file_at(found.delta.entries, PRESET).content.decode()
    assert tuple(name for name in DAILY if f"enable {name}\n" in preset) == kept


@pytest.mark.parametrize("name", UBUNTU)
def test_what_an_old_cloud_init_writes_for_all_to_read_lies_where_only_root_gets(name):
    """22.04's writes netplan's file, with the Wi-Fi key in it, as 0644."""
    assert entries(name)["/etc/netplan"] == Directory(0o700)


def test_no_entry_names_the_disk_by_what_the_first_boot_renews():
    for name in RASPIOS:
        old = CARDS[name].layout.disk_id
        for path, entry in entries(name).items():
            if path != cmdline_path(FACTS[name]):
                assert old.encode() not in getattr(entry, "content", b""), path


def derivative():
    """A system that nobody has heard of and that says what it is like."""
    card = raspios.bookworm(raspios.Choice(baked=False))
    os_release = 'PRETTY_NAME="Mesh OS 4"\nVERSION_ID="4"\nID=meshos\nID_LIKE=debian\n'
    root = {**card.root, "/usr/lib/os-release": text(os_release), "/etc/rpi-issue": text("")}
    return facts_of(replace(card, root=root))


def test_a_relative_is_known_by_what_it_is_like_and_may_have_package_names_of_its_own(tmp_path):
    facts = derivative()
    tables = tmp_path / "profiles" / "packages"
    tables.mkdir(parents=True)
    (tables / "meshos.yaml").write_text("time: [meshos-chrony]\n")
    (tables / "meshos-4.yaml").write_text("parallel-ssh: null\n")

    names = real_names({"time": "me", "cloud-init": "me"}, facts, tmp_path)

    assert recognise(facts).kind == "debian"
    assert set(names) == {"meshos-chrony", "cloud-init"}
    with pytest.raises(UnsupportedError, match="`Mesh OS 4` has no package for `parallel-ssh`"):
        real_names({"parallel-ssh": "me"}, facts, tmp_path)


def test_a_relative_gets_a_whole_plan():
    facts = derivative()
    brought = {**facts.packages, "cloud-init": "22.4.2-1", "chrony": "4.3-2"}
    full = facts_of(raspios.bookworm())
    facts = replace(full, os=facts.os, rpi_issue=None, packages=brought, cloud_init="22.4.2-1")

    planned = plan.plan_variant(cluster(), phony.HEAD, facts)

    assert "/etc/NetworkManager/system-connections/piimage-wired.nmconnection" in planned.slots


MIXED = """\
version: 1
name: mixed
base: {head}
users: [{{name: ada, uid: 1000, rename_from: auto}}]
network: {{wired: {{subnet: 10.7.0.0/24}}}}
mpi: {{flavour: openmpi}}
roles: {{worker: {{base: {worker}}}}}
nodes: {{count: 3}}
"""


@pytest.mark.parametrize(
    ("head", "worker", "refused"),
    [
        ("trixie", "debian-13", ""),
        ("debian-13", "trixie", ""),
        ("trixie", "bookworm", "arm64 bookworm"),
        ("trixie", "noble", "arm64 noble"),
        ("noble", "resolute", "arm64 resolute"),
        ("jammy", "trixie", "arm64 trixie"),
        ("raspi-13", "trixie", ""),
        ("raspi-12", "debian-13", "arm64 trixie"),
    ],
)
def test_vendors_mix_in_a_cluster_when_their_releases_have_one_mpi(head, worker, refused, tmp_path):
    """`validate` says so as soon as both bases are here."""
    path = tmp_path / "cluster.yaml"
    path.write_text(MIXED.format(head=head, worker=worker))
    known = {**FACTS, "debian-13": phony.debian()}

    if not refused:
        assert resolve.load(path, env={}, facts=known.get).diagnostics == ()
        return
    with pytest.raises(ConfigError) as caught:
        resolve.load(path, env={}, facts=known.get)
    (finding,) = caught.value.diagnostics
    assert finding.code == "mixed-mpi"
    assert refused in finding.message


@pytest.mark.parametrize("name", CARDS)
def test_a_plan_for_people_can_be_made_over_every_base(name):
    made = cluster()
    made = replace(
        made, users=tuple(replace(u, password=SecretRef("env", "X")) for u in made.users)
    )
    planned = plan.plan_variant(made, phony.HEAD, FACTS[name])

    shown = plan.plan_stamp(
        made, made.nodes[0], FACTS[name], planned, "f" * 64, stand_ins.stand_ins(made)
    )

    assert b"<password hash of federico>" in shown.slots[slots.USER_DATA]
