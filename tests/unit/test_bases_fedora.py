"""What makes a Fedora card boot half configured, each by its name: no fstab, GRUB's entries, labels, initial-setup."""

from __future__ import annotations

import gzip
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import phony_facts as phony
import pytest
from delta_files import file_at
from fixtures import fedora, fedora_server
from fixtures.card import Node, folder, text

from piimage import stamping
from piimage.bases.facts_reader import read_facts
from piimage.bases.layout import find_root
from piimage.boot import entries as boot_entries
from piimage.boot.card import extract, read_card
from piimage.boot.disk import Disk
from piimage.cluster import Share
from piimage.components import network_profiles, slots
from piimage.delta import Absent, Slot, Symlink
from piimage.disk.table import read_table
from piimage.distros import boot_loader
from piimage.distros.packages import levels, real_names
from piimage.errors import ImageError, UnsupportedError
from piimage.plan import plan, recipe
from piimage.verify.examine import examine
from piimage.verify.known import Known

SERVER = fedora_server.release(43)
RELEASES = [
    pytest.param(fedora.OLD, id="fedora-42"),
    pytest.param(fedora.NEW, id="fedora-43"),
    pytest.param(SERVER, id="fedora-server-43"),
]
UNITS = "/etc/systemd/system"
#: How a physical volume of LVM begins, after its first sector.
VOLUME = b"LABELONE".ljust(20, b"\0") + b"\x20\0\0\0LVM2 001" + b"abcdefghijklmnopqrstuvwxyz012345"
REGDOM = "cfg80211.ieee80211_regdom=IT"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Images by release; nobody writes to them."""
    home = tmp_path_factory.mktemp("fedora")
    cards = {release: card_of(release) for release in (fedora.OLD, fedora.NEW, SERVER)}
    return {release: card.write(home / f"{card.name}.img") for release, card in cards.items()}


def card_of(release):
    if release is SERVER:
        return fedora_server.server(43, root_size=320 << 20)
    return fedora.minimal(release, root_size=24 << 20)


@cache
def facts_of(release):
    with TemporaryDirectory() as home:
        image = card_of(release).write(Path(home, "card.img"))
        return read_facts(image, image_id="c" * 64)


@cache
def planned(release):
    return plan.plan_variant(phony.cluster(), phony.HEAD, facts_of(release))


def entries(release):
    return planned(release).delta.entries


def stamped(release, **more):
    made = phony.cluster()
    node = replace(made.nodes[0], **more)
    made = replace(made, nodes=(node, *made.nodes[1:]))
    return plan.plan_stamp(
        made, node, facts_of(release), planned(release), "f" * 64, phony.secrets(made)
    )


@pytest.mark.parametrize("release", RELEASES)
def test_mounts_are_found_in_fstab_or_where_there_is_none_in_units(release):
    facts = facts_of(release)

    assert facts.mounts.keys() == {"/", "/boot", "/boot/efi"}
    places = [facts.table.partition(facts.mounts[p]) for p in ("/boot/efi", "/boot", "/")]
    assert [facts.table.outside(place).number for place in places] == [1, 2, 3]
    assert places[2].volume == ("fedora/root" if release is SERVER else "")
    assert facts.firmware == "/boot/efi"
    assert facts.has("/etc/fstab") == (release is not fedora.NEW)
    assert facts.network_stack == "networkmanager"
    assert facts.packages["chrony"] == "4.8-1.fc43"


@pytest.mark.parametrize("release", RELEASES)
def test_what_the_boot_partition_hides_is_not_seen_and_what_it_holds_is(release, tmp_path):
    card = card_of(release)
    card = replace(
        card, root={**card.root, "/boot/loader/entries/hidden.conf": text("options x\n")}
    )

    facts = read_facts(card.write(tmp_path / "card.img"), image_id="c" * 64)

    assert "/boot/loader/entries/hidden.conf" not in facts.files
    assert f"/boot/vmlinuz-{release.kernel}" in facts.files
    assert "rpi-u-boot" in facts.text("/boot/efi/config.txt")


@pytest.mark.parametrize("release", RELEASES)
def test_kernel_tokens_are_in_every_entry_and_in_what_the_next_kernel_gets(release):
    found = {p: e for p, e in entries(release).items() if p.startswith("/boot/")}

    assert len(found) == 2
    for path, entry in found.items():
        before = facts_of(release).text(path)
        after = entry.content.decode()
        assert boot_loader.options(after).split() == [*boot_loader.options(before).split(), REGDOM]
        assert after.count("\noptions ") == 1
        assert boot_loader.field(after, "grub_class") == "fedora"
    path = boot_loader.GRUB_DEFAULTS
    old, new = (
        re.findall('^GRUB_CMDLINE_LINUX="(.*)"$', text_, re.MULTILINE)
        for text_ in (facts_of(release).text(path), entries(release)[path].content.decode())
    )
    assert new == [f"{old[0]} {REGDOM}".strip()]


@pytest.mark.parametrize("release", RELEASES)
def test_no_cmdline_txt_is_made_that_nobody_would_read(release):
    assert not [p for p in entries(release) if p.endswith("/cmdline.txt")]


@pytest.mark.parametrize("release", RELEASES)
def test_no_fstab_is_made_beside_mount_units(release):
    assert "/etc/fstab" not in entries(release)


@pytest.mark.parametrize("release", RELEASES)
def test_initial_setup_asks_nobody(release):
    found = entries(release)

    assert found[f"{UNITS}/initial-setup.service"] == Symlink(
        "/dev/null", label="system_u:object_r:systemd_unit_file_t:s0"
    )
    for target in ("multi-user", "graphical"):
        assert found[f"{UNITS}/{target}.target.wants/initial-setup.service"] == Absent()


def test_a_reconfiguration_that_is_asked_for_is_taken_back(tmp_path):
    card = fedora.minimal(fedora.NEW, root_size=24 << 20)
    card = replace(card, root={**card.root, "/.unconfigured": text("")})
    facts = read_facts(card.write(tmp_path / "card.img"), image_id="c" * 64)

    found = plan.plan_variant(phony.cluster(), phony.HEAD, facts).delta.entries

    assert found["/.unconfigured"] == Absent()


@pytest.mark.parametrize("release", RELEASES)
def test_presets_of_a_first_boot_leave_units_as_they_were_built(release):
    text_ = entries(release)[f"{UNITS}-preset/10-piimage.preset"].content.decode()

    for line in ("enable sshd.service", "enable chronyd.service", "disable initial-setup.service"):
        assert f"{line}\n" in text_


@pytest.mark.parametrize("release", RELEASES)
def test_no_host_keys_are_made_that_nobody_knows(release):
    assert entries(release)[f"{UNITS}/sshd-keygen.target"].target == "/dev/null"


@pytest.mark.parametrize("release", RELEASES)
def test_chronyd_has_its_settings_where_fedora_keeps_them(release):
    found = entries(release)

    assert 'OPTIONS="-F 2 -s"' in found["/etc/sysconfig/chronyd"].content.decode()
    assert "confdir /etc/chrony.d\n" in found["/etc/chrony.conf"].content.decode()
    assert "/etc/chrony.d/10-piimage.conf" in found


def test_a_firewall_lets_the_wire_through_and_nothing_else():
    profiles = {
        r: stamped(r).slots[network_profiles.WIRED_PROFILE].decode()
        for r in (fedora.OLD, fedora.NEW, SERVER)
    }
    wifi = stamped(fedora.OLD).slots[network_profiles.WIFI_PROFILE].decode()

    for release in (fedora.OLD, SERVER):
        assert "autoconnect-retries=0\nzone=trusted\n" in profiles[release]
    assert "zone=" not in profiles[fedora.NEW]
    assert "zone=" not in wifi


@pytest.mark.parametrize("release", RELEASES)
def test_the_wire_is_found_under_the_name_that_fedora_gives_it(release):
    profile = stamped(release).slots[network_profiles.WIRED_PROFILE].decode()

    assert "interface-name=eth0;end0;\n" in profile


@pytest.mark.parametrize("release", RELEASES)
def test_a_port_on_usb_is_the_wire_too(release):
    """Up to the Pi 3 systemd would call it after its path or its address."""
    found = entries(release)[f"{UNITS.rpartition('/')[0]}/network/10-piimage-wire.link"]

    assert found.content.decode().splitlines() == [
        "[Match]", "Path=platform-3f980000.usb-*", "Driver=lan78xx smsc95xx", "", "[Link]", "Name=eth0",
    ]  # fmt: skip
    assert found.label == "system_u:object_r:etc_t:s0"


@pytest.mark.parametrize("release", RELEASES)
def test_no_node_fetches_or_installs_by_itself(release):
    facts, name = facts_of(release), "dnf-makecache.timer"
    timer = phony.service(name, wanted_by="timers.target", enabled=True)
    facts = phony.with_files(facts, {f"{UNITS}/timers.target.wants/{name}": phony.link("/x")})
    facts = replace(facts, units={**facts.units, name: timer})

    found = plan.plan_variant(phony.cluster(), phony.HEAD, facts).delta.entries

    assert found[f"{UNITS}/timers.target.wants/{name}"] == Absent()


@pytest.mark.parametrize("release", RELEASES)
def test_apt_is_nothing_that_fedora_is_told_of(release):
    assert b"apt" not in entries(release)["/etc/cloud/cloud.cfg.d/99-zz-piimage.cfg"].content


def test_a_node_whose_root_is_read_only_at_first_still_gets_a_machine_id():
    """machine-id(5): without the file systemd goes on with no id at all if /etc cannot be written yet."""
    for options, wanted in (("ro", b"uninitialized\n"), ("rw", None)):
        found = entries(replace(fedora.OLD, machine_id=None, options=options)).get(
            "/etc/machine-id"
        )
        assert (found.content if found else None) == wanted
    assert "/etc/machine-id" not in entries(fedora.OLD)


def test_a_damaged_volume_group_is_told(tmp_path):
    image = fedora.minimal(fedora.OLD, root_size=24 << 20).write(tmp_path / "card.img")
    start = read_table(image).partition(3).start
    with image.open("r+b") as file:
        file.seek(start)
        file.write((bytes(512) + VOLUME).ljust(4096, b"\0"))

    with pytest.raises(ImageError, match=f"LVM volume .* at byte {start} is damaged: the checksum"):
        read_facts(image, image_id="c" * 64)


def test_a_firewall_that_is_switched_off_is_none():
    facts = facts_of(fedora.OLD)
    units = {
        **facts.units,
        "firewalld.service": replace(facts.units["firewalld.service"], enabled=False),
    }
    made = phony.cluster()

    found = network_profiles.stamp(
        made, made.nodes[0], replace(facts, units=units), phony.secrets(made)
    )

    assert b"zone=" not in found.slots[network_profiles.WIRED_PROFILE]


@pytest.mark.parametrize("release", RELEASES)
def test_everything_that_is_written_has_the_label_that_the_policy_has_for_it(release):
    found = entries(release)
    labels = {
        path: entry.label
        for path, entry in found.items()
        if not isinstance(entry, Absent) and not path.startswith("/boot/efi/")
    }

    assert None not in labels.values()
    assert {path: label.split(":")[2] for path, label in labels.items()}.items() >= {
        "/etc/passwd": "passwd_file_t", "/etc/shadow": "shadow_t", "/etc/hostname": "hostname_etc_t",
        "/etc/ssh/ssh_host_ed25519_key": "sshd_key_t", "/etc/localtime": "locale_t",
        "/home/federico": "user_home_dir_t", "/home/federico/.ssh/authorized_keys": "ssh_home_t",
        "/home/federico/.ssh": "ssh_home_t", "/home/federico/.bashrc": "user_home_t",
        network_profiles.WIRED_PROFILE: "NetworkManager_etc_rw_t",
        "/var/lib/cloud/seed/nocloud/user-data": "cloud_var_lib_t", "/usr/lib/piimage/trim-slots": "lib_t",
        f"/boot/loader/entries/{'0' * 31}f-{release.kernel}.conf": "boot_t",
    }.items()  # fmt: skip


@pytest.mark.parametrize("mode", ["disabled", "none-at-all"])
def test_without_selinux_nothing_is_labelled(mode):
    facts = facts_of(fedora.NEW)
    config = phony.text(f"SELINUX={mode}\nSELINUXTYPE=targeted\n")

    found = plan.plan_variant(
        phony.cluster(), phony.HEAD, phony.with_files(facts, {"/etc/selinux/config": config})
    )

    assert not [e for e in found.delta.entries.values() if getattr(e, "label", None)]


def test_slots_are_labelled_in_the_image_since_a_stamp_knows_no_labels():
    slots = [e for e in entries(fedora.NEW).values() if isinstance(e, Slot)]

    assert slots
    assert all(slot.label for slot in slots)


@pytest.mark.parametrize("release", RELEASES)
def test_cards_get_signatures_of_their_own_though_the_image_has_one_for_all(release):
    made = phony.cluster()

    assert stamping.own_disk_id(made, made.nodes[0].name, facts_of(release)) is not None


def test_kernel_tokens_of_a_single_node_are_refused():
    with pytest.raises(UnsupportedError, match="asks for kernel tokens of its own"):
        stamped(fedora.NEW, cmdline=("quiet",))


def test_names_of_packages_are_fedoras():
    assert levels(facts_of(fedora.NEW)) == ("fedora-43", "fedora", "default")


@pytest.mark.parametrize("release", RELEASES)
def test_what_grows_the_root_is_asked_of_fedoras_archive(release):
    """By cloud-init, which calls growpart: the image has neither."""
    facts = facts_of(release)
    kept = {n: v for n, v in facts.packages.items() if "cloud" not in n}
    wanted = recipe.wanted_packages(phony.cluster(), phony.HEAD, facts)

    assert {"cloud-init", "cloud-utils-growpart"} <= set(
        real_names(wanted, replace(facts, packages=kept))
    )


def test_a_system_of_deployments_is_refused_with_the_way_to_go(tmp_path):
    card = fedora.minimal(fedora.NEW, root_size=24 << 20)
    deployed = "/ostree/deploy/fedora-iot/deploy/0f0f.0/etc/os-release"
    card = replace(card, root={deployed: text("ID=fedora\n"), "/boot": folder()})

    with pytest.raises(UnsupportedError, match="ostree system such as Fedora IoT") as error:
        read_facts(card.write(tmp_path / "card.img"), image_id="c" * 64)

    assert "Ignition" in (error.value.hint or "")


@pytest.mark.parametrize("release", RELEASES)
def test_a_rehearsal_starts_what_grub_would_start(release, images, tmp_path):
    card = read_card(Disk(image=images[release], build=None))

    assert card.layout.kernel == f"/vmlinuz-{release.kernel}"
    assert card.layout.initrd == f"/initramfs-{release.kernel}.img"
    root = "/dev/mapper/fedora-root" if release is SERVER else f"UUID={fedora.ROOT_UUID}"
    assert card.cmdline == f"root={root} {release.options}"
    assert card.root_start == find_root(images[release], read_table(images[release])).start
    assert extract(card, card.layout.kernel, tmp_path).read_bytes() == bytes(1 << 12)


def test_a_cmdline_txt_that_the_firmware_hands_over_goes_before_entries(tmp_path):
    card = fedora.minimal(fedora.NEW, root_size=24 << 20)
    card = replace(card, boot={**card.boot, "cmdline.txt": b"root=LABEL=root rw\n"})
    image = card.write(tmp_path / "card.img")
    facts = read_facts(image, image_id="c" * 64)

    found = plan.plan_variant(phony.cluster(), phony.HEAD, facts).delta.entries

    assert read_card(Disk(image=image, build=None)).cmdline == "root=LABEL=root rw"
    assert (
        file_at(found, "/boot/efi/cmdline.txt").content == f"root=LABEL=root rw {REGDOM}\n".encode()
    )
    assert not [path for path in found if "/loader/" in path]


def test_a_kernel_that_unpacks_itself_is_unpacked():
    packed = gzip.compress(b"ARMd" * 9)
    head = b"MZ\0\0zimg" + (64).to_bytes(4, "little") + len(packed).to_bytes(4, "little")
    kernel = (head.ljust(24, b"\0") + b"gzip").ljust(64, b"\0") + packed + b"trailer"

    assert boot_entries.unpacked(kernel) == b"ARMd" * 9
    with pytest.raises(ImageError, match="packed by `lzma`"):
        boot_entries.unpacked(kernel.replace(b"gzip", b"lzma", 1))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda e: e.replace(fedora.ROOT_UUID, fedora.BOOT_UUID), "PI202"),
        (lambda e: e.replace("linux /vmlinuz", "linux /vmlinux"), "PI204"),
        (lambda e: e.replace("options ", "# options "), "PI201"),
    ],
    ids=["foreign-root", "no-such-kernel", "no-options"],
)
def test_an_entry_that_would_not_boot_is_found(change, rule, tmp_path):
    card = fedora.minimal(fedora.NEW, root_size=24 << 20)
    path = f"/loader/entries/{'0' * 31}f-{fedora.NEW.kernel}.conf"
    broken = change(card.middle[path].content.decode())
    card = replace(card, middle={**card.middle, path: Node(broken.encode())})

    found = examine(card.write(tmp_path / "card.img"), Known())

    told = {
        (f.rule, f.path) for f in found.findings if f.rule in ("PI201", "PI202", "PI203", "PI204")
    }
    assert told == {(rule, f"/boot{path}")}


def test_nothing_is_mounted_where_a_unit_is_not_enabled(tmp_path):
    card = fedora.minimal(fedora.NEW, root_size=24 << 20)
    root = {p: n for p, n in card.root.items() if not p.endswith(".wants/boot-efi.mount")}

    with pytest.raises(ImageError, match="does not mount the firmware's partition"):
        read_facts(replace(card, root=root).write(tmp_path / "card.img"), image_id="c" * 64)


@pytest.mark.parametrize("release", RELEASES)
def test_users_are_made_with_their_numbers_though_the_image_has_none(release):
    found = entries(release)

    passwd = found["/etc/passwd"].content.decode()
    assert "\nfederico:x:1000:1000:" in passwd
    assert passwd.startswith("root:x:0:0:root:")
    assert "wheel:x:10:ops\n" in found["/etc/group"].content.decode()
    shadow = found["/etc/shadow"]
    assert (shadow.mode, shadow.gid) == (0o640, 42)


@pytest.mark.parametrize("release", RELEASES)
def test_sudo_without_password_is_the_first_users(release):
    rules = {p: e.content for p, e in entries(release).items() if p.startswith("/etc/sudoers.d/")}

    assert rules == {"/etc/sudoers.d/010_federico": b"federico ALL=(ALL:ALL) NOPASSWD: ALL\n"}


@pytest.mark.parametrize("release", RELEASES)
def test_the_wifi_key_is_hashed_and_in_a_file_of_root_alone(release):
    secrets = phony.secrets(phony.cluster())
    profile = stamped(release).slots[network_profiles.WIFI_PROFILE].decode()
    slot = entries(release)[network_profiles.WIFI_PROFILE]

    assert f"psk={secrets.psk}\n" in profile
    assert (slot.mode, slot.uid, slot.gid) == (0o600, 0, 0)
    assert b"WirelessEnabled=true" in entries(release)[network_profiles._STATE].content


@pytest.mark.parametrize("release", RELEASES)
def test_the_seed_is_roots_alone_and_nothing_overrides_it(release):
    found = entries(release)

    assert found["/var/lib/cloud/seed/nocloud"].mode == 0o700
    assert found["/var/lib/cloud/seed/nocloud/user-data"].mode == 0o600
    settings = found["/etc/cloud/cloud.cfg.d/99-zz-piimage.cfg"].content.decode()
    assert "datasource_list: [NoCloud, None]\n" in settings
    assert "network: {config: disabled}\n" in settings
    assert b"instance-id: piimage-" in stamped(release).slots[slots.META_DATA]


@pytest.mark.parametrize("release", RELEASES)
def test_the_head_exports_its_share(release):
    made = phony.cluster(shares=(Share(path="/srv/work", server="node0"),))
    head = replace(phony.HEAD, serves=("/srv/work",))

    found = plan.plan_variant(made, head, facts_of(release)).delta.entries

    assert b"/srv/work " in file_at(found, "/etc/exports.d/piimage.exports").content
    assert f"{UNITS}/multi-user.target.wants/nfs-server.service" in found
    masked = found[f"{UNITS}/rpcbind.service"]
    assert isinstance(masked, Symlink)
    assert masked.target == "/dev/null"


@pytest.mark.parametrize("release", RELEASES)
def test_no_secret_is_on_the_esp_and_none_in_the_variant(release):
    made = phony.cluster()
    secrets = phony.secrets(made)
    on_fat = b"".join(stamped(release).firmware.values())
    in_variant = b"".join(e.content for e in entries(release).values() if hasattr(e, "content"))

    for secret in (secrets.psk.encode(), secrets.cluster_private, b"PRIVATE KEY"):
        assert secret not in on_fat
        assert secret not in in_variant
