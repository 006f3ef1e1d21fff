"""Verify below its integration tests: promises, the rules that compare cards, what programs read."""

from __future__ import annotations

import dataclasses
import json
import time
from xml.etree import ElementTree as ET

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    SSHCertificateBuilder,
    SSHCertificateType,
)
from hypothesis import given
from hypothesis import strategies as st
from phony import BOOT_START, SEED, SMALL_BOOT_SIZE, SMALL_ROOT_START

from piimage import imprint
from piimage.components import slots
from piimage.delta import Absent, Delta, Directory, File, Slot, Symlink
from piimage.disk import census
from piimage.disk.census import Census, Seen
from piimage.disk.ext4 import open_ext4
from piimage.disk.ext4_super import read_superblock
from piimage.disk.slots import Patch
from piimage.disk.table import read_table
from piimage.disk.window import window
from piimage.facts import Filesystem, Partition, PartitionTable
from piimage.verify import (
    disks,
    formats,
    rules_access,
    rules_boot,
    rules_mounts,
    rules_network,
    rules_seed,
)
from piimage.verify.catalog import RULES, Finding
from piimage.verify.difference import difference
from piimage.verify.promises import broken, promised
from piimage.verify.traits import Traits, compared
from piimage.verify.traits import traits as traits_of
from piimage.verify.verify import Verdict
from piimage.verify.view import Place, View

LABEL = "system_u:object_r:etc_t:s0"
# -- promises ----------------------------------------------------------------------------------------

PLACE = Place(root=2, firmware=1, mountpoint="/boot/firmware")
TABLE = PartitionTable(
    label="dos", disk_id="01020304", sector_size=512, size=100 << 20, partitions=()
)


def view(root, firmware=None):
    return View(table=TABLE, place=PLACE, boot_sector="", root=root, firmware=firmware or {},
                reader=lambda _path: None)  # fmt: skip


def counting(root, firmware=None):
    return Census(table=TABLE, numbers=(2, 1), boot_sector="", superblock="", place="/boot/firmware", root=root,
                  firmware=firmware or {})  # fmt: skip


FILE = Seen(
    kind="file", mode=0o644, size=1, sha256="a" * 64, attributes={"security.selinux": LABEL}
)
FOLDER = Seen(kind="dir", mode=0o755)
TREE = {"/": FOLDER, "/a": FOLDER, "/a/b": FOLDER, "/a/b/c": FILE, "/a/b/d": FILE, "/e": FILE}


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"mode": 0o600}, "PI102"), ({"uid": 5}, "PI102"), ({"gid": 5}, "PI102"), ({"size": 2}, "PI101"),
        ({"sha256": "b" * 64}, "PI101"), ({"kind": "link"}, "PI106"), ({"target": "/x"}, "PI106"),
        ({"attributes": {}}, "PI105"), ({"attributes": {"security.selinux": LABEL, "user.x": "1"}}, "PI105"),
        ({"flags": 0x10}, "PI105"),
    ],
)  # fmt: skip
def test_every_difference_has_its_rule(changed, rule):
    seen = {**TREE, "/e": dataclasses.replace(FILE, **changed)}
    due = promised(counting(TREE), None, None, "/boot/firmware")

    assert {(f.rule, f.path) for f in broken(due, view(seen))} == {(rule, "/e")}
    assert not list(broken(due, view(TREE)))


def test_of_a_directory_that_is_missing_or_new_only_the_directory_is_told():
    less = {path: seen for path, seen in TREE.items() if not path.startswith("/a/b")}
    due, new = (promised(counting(t), None, None, "/boot/firmware") for t in (TREE, less))

    assert [(f.rule, f.path) for f in broken(due, view(less))] == [("PI103", "/a/b")]
    assert [(f.rule, f.path) for f in broken(new, view(TREE))] == [("PI104", "/a/b")]


def plan_of(entries):
    class Plan:
        delta = Delta.of("users", entries)

    return (Plan(), None)


def test_the_plan_has_the_last_word_and_tells_who_wants_a_file():
    plan = plan_of(
        {
            "/e": File(b"x", mode=0o600),
            "/a/b": Absent(),
            "/slot": Slot(4096),
            "/f": Directory(0o700),
            "/g": Symlink("e"),
        }
    )
    due = promised(counting(TREE), None, plan, "/boot/firmware")
    found = {(f.rule, f.path) for f in broken(due, view(TREE))}

    assert {
        ("PI101", "/e"),
        ("PI102", "/e"),
        ("PI103", "/slot"),
        ("PI103", "/f"),
        ("PI103", "/g"),
    } <= found
    assert ("PI104", "/a/b") in found
    assert any("users" in f.message for f in broken(due, view(TREE)) if f.path == "/e")


def test_without_an_imprint_slots_are_not_compared_by_content():
    padding = imprint.digest(b"\n" * 4096)
    tree = {**TREE, "/slot": Seen(kind="file", mode=0o600, size=padding[0], sha256=padding[1])}
    filled = {**tree, "/slot": dataclasses.replace(tree["/slot"], sha256="f" * 64)}
    card = promised(counting(tree), None, None, "/boot/firmware")
    variant = promised(counting(tree), None, None, "/boot/firmware", bare=True)

    assert not list(broken(card, view(filled, {"/piimage.json": FILE})))
    assert {f.path for f in broken(variant, view(filled, {"/piimage.json": FILE}))} == {
        "/slot", "/boot/firmware/piimage.json",
    }  # fmt: skip


def test_what_lies_below_a_mount_is_told_unless_the_base_has_it_so():
    tree = {**TREE, "/boot/firmware": FOLDER, "/boot/firmware/old": FILE}
    due = promised(counting(tree, {"/cmdline.txt": FILE}), None, None, "/boot/firmware")
    seen = {**tree, "/boot/firmware/cmdline.txt": FILE}

    assert not list(broken(due, view(tree, {"/cmdline.txt": FILE})))
    (found,) = broken(due, view(seen, {"/cmdline.txt": FILE}))
    assert (found.rule, found.path) == ("PI104", "/boot/firmware/cmdline.txt")


@pytest.mark.parametrize(
    ("due", "found", "shown", "hidden"),
    [
        (b"a\nb\nc\n", b"a\nB\nc\n", "line 2 is `B`, not `b`", "line 2 is another"),
        (b"a\nb\nc\n", b"a\nc\n", "line 2, `b`, is missing", "line 2 is missing"),
        (b"a\nc\n", b"a\nb\nc\n\n\n", "line 2, `b`, is too much", "line 2 is too much"),
        (b"a\n", b"a\nb\nc\nd\n", "line 2, `b`, is too much, and 2 more lines",
         "line 2 is too much, and 2 more lines"),
        (b"a\nb\n", b"x\ny\n", "line 1 is `x`, not `a`, and 1 more line", "line 1 is another, and 1 more line"),
        (b"  psk: secret\n", b"  psk: other\n", "line 1 is `  psk: other`, not `  psk: secret`",
         "line 1 (`psk`) is another"),
        (b"w " * 60 + b"last\n", b"w " * 59 + b"new last\n", "line 1 has lost `w` and has `new` too much",
         "line 1 is another"),
        (b"w " * 60 + b"a b\n", b"w " * 60 + b"b a\n", "line 1 has its words in another order", "line 1 is another"),
        (b"a" * 300, b"b" * 300, f"line 1 has lost `{'a' * 100}...` and has `{'b' * 100}...` too much",
         "line 1 is another"),
        (b"a\n\n", b"a\n", "the ends of the two differ", "the ends of the two differ"),
        (b"a\0b", b"a\0c", "", ""), (b"a" * (1 << 19), b"b", "", ""),
    ],
)  # fmt: skip
def test_the_line_that_differs_is_told_or_only_its_number(due, found, shown, hidden):
    assert difference(due, found, shown=True) == shown
    assert difference(due, found, shown=False) == hidden


@given(st.text(alphabet="ab\n", max_size=30), st.text(alphabet="ab\n", max_size=30))
def test_a_difference_is_always_told(due, found):
    told = difference(due.encode(), found.encode(), shown=True)

    assert bool(told) == (due != found)


def test_what_others_may_not_read_is_not_told():
    """Of a promised text the line, of a private one its number."""
    files = {"/open": File(b"address: 1\n"), "/private": File(b"psk: 1\n", mode=0o600)}
    held = {"/open": b"address: 2\n", "/private": b"psk: 2\n"}
    tree = {
        path: Seen(kind="file", mode=entry.mode, size=len(entry.content), sha256="0" * 64)
        for path, entry in files.items()
    }
    card = dataclasses.replace(view(tree), reader=held.get)
    told = {f.path: f.message for f in broken(promised(None, None, plan_of(files), "/boot"), card)}

    assert told["/open"].endswith("of users: line 1 is `address: 2`, not `address: 1`")
    assert told["/private"].endswith("of users: line 1 (`psk`) is another")


# -- the disk and the cluster ------------------------------------------------------------------------


def partition(number, start, size, **more):
    known = Filesystem(type="ext4", label="rootfs", uuid="u")
    return Partition(number=number, start=start, size=size, type="83", filesystem=known, **more)


def test_a_table_is_held_against_the_disk_and_the_build():
    whole = dataclasses.replace(
        TABLE, partitions=(partition(1, 4096, 4096), partition(2, 8192, 4096))
    )
    other = dataclasses.replace(
        whole, partitions=(partition(1, 4096, 8192), partition(3, 90 << 20, 20 << 20))
    )
    known = dataclasses.replace(counting({}), table=whole)

    assert not list(disks.table(whole, known, "01020304"))
    words = [f.message for f in disks.table(other, known, "ffffffff")]
    assert len(words) == 5
    assert "partition 3 ends behind the image" in words
    assert "the disk id is 01020304, not ffffffff" in words
    overlap = dataclasses.replace(
        whole, partitions=(partition(1, 4096, 8192), partition(2, 8192, 4096))
    )
    assert [f.message for f in disks.table(overlap, None, None)] == ["partitions 1 and 2 overlap"]


@pytest.fixture
def whole(small):
    """A small image, and what was known of it when it was built."""
    made = read_table(small)
    known = dataclasses.replace(counting({}), table=made, boot_sector=census.boot_sector(small))
    return small, known


def test_a_boot_sector_as_it_was_built_is_nothing_to_tell(whole):
    assert list(disks.boot_sector(*whole, alone=True)) == []


@pytest.mark.parametrize(
    ("changes", "alone", "told"),
    [
        ({0x1BE: b"\x80"}, True, ["the boot flag of partition 1 is set"]),
        ({0x1BE: b"\x80", 0x1B8: b"abcd"}, False, ["the boot flag of partition 1 is set"]),
        ({0x1BE + 16: b"\x80", 0x1BE + 20: b"\x8e"}, False, ["the boot flag of partition 2 is set"]),
        ({0x1BE + 8: b"\1\2\3\4", 0x1BE: b"\x80"}, False, ["the boot flag of partition 1 is set"]),
        ({0x1BE + 32: b"\x80" + bytes(3) + b"\x83"}, False, []),  # that there is a third is told already
        ({0x1B8: b"abcd"}, False, []), ({0x1BE + 20: b"\x8e"}, False, []),
        ({0: b"\xeb"}, True, ["the boot sector is another: its flags or its code"]), ({0: b"\xeb"}, False, []),
    ],
)  # fmt: skip
def test_a_boot_flag_is_told_beside_what_else_is_found(whole, changes, alone, told):
    image, known = whole
    with image.open("r+b") as file:
        for where, data in changes.items():
            file.seek(where)
            file.write(data)

    found = list(disks.boot_sector(image, known, alone=alone))

    assert [f.message for f in found] == told
    assert {f.rule for f in found} <= {"PI001"}


def test_a_boot_flag_that_is_gone_is_told_too(whole):
    image, known = whole
    with image.open("r+b") as file:
        file.seek(0x1BE)
        file.write(b"\x80")
        file.flush()
        known = dataclasses.replace(known, boot_sector=census.boot_sector(image))
        file.seek(0x1BE)
        file.write(b"\0")

    (found,) = disks.boot_sector(image, known, alone=False)

    assert found.message == "the boot flag of partition 1 is not set"


def copies(image):
    with window(image, SMALL_ROOT_START) as source:
        superblock = read_superblock(source)
        return [
            SMALL_ROOT_START + superblock.group_start(group) * superblock.block_size
            for group in range(1, superblock.groups)
            if superblock.has_backup(group)
        ]


@pytest.mark.parametrize("harm", [bytes(1024), b"\1"])
def test_a_copy_of_the_superblock_that_would_be_of_no_help_is_told(small, harm):
    """e2fsck finds nothing wrong: it looks at the first alone, and needs a copy only when that is gone."""
    (first, *_) = copies(small)
    assert list(disks.root(small, read_table(small).partition(2), None)) == []
    with small.open("r+b") as file:
        file.seek(first + 4)
        file.write(harm)

    (found,) = disks.root(small, read_table(small).partition(2), None)

    assert (found.rule, found.message) == (
        "PI002",
        "the copy of its superblock in block group 1 is damaged",
    )


def traits(own, number, **changed):
    made = Traits(
        name=own, addresses=frozenset({f"10.0.0.{number}"}), instance_id=f"i-{own}", host_key=f"k {own}",
        disk_id=f"{number:08x}", renews=False, roster={"/etc/hosts": "same"},
    )  # fmt: skip
    return dataclasses.replace(made, **changed)


@pytest.mark.parametrize(
    ("rule", "changed"),
    [
        ("PI301", {"name": "a"}), ("PI302", {"addresses": frozenset({"10.0.0.9", "10.0.0.1"})}),
        ("PI303", {"instance_id": "i-a"}), ("PI304", {"host_key": "k a"}), ("PI305", {"disk_id": "00000001"}),
    ],
)  # fmt: skip
def test_what_two_cards_share_is_told_of_both(rule, changed):
    cards = {"a": traits("a", 1), "b": traits("b", 2, **changed), "c": traits("c", 3)}

    found = compared(cards)

    assert {name: [f.rule for f in each] for name, each in found.items()} == {
        "a": [rule],
        "b": [rule],
    }


def test_a_disk_id_may_be_shared_where_the_first_boot_renews_it():
    cards = {n: traits(n, i, disk_id="1badcafe", renews=True) for i, n in enumerate("abc")}

    assert compared(cards) == {}


def holding(held, table=TABLE):
    """A view of an image with these files."""
    tree = {path: dataclasses.replace(FILE, size=len(data)) for path, data in held.items()}
    made = dataclasses.replace(view(tree), table=table)
    return dataclasses.replace(made, reader={p: d.encode() for p, d in held.items()}.get)


RESIZES = "/usr/lib/systemd/system/rpi-resize.service"


@pytest.mark.parametrize(
    ("token", "unit", "renews"),
    [
        ("init=/usr/lib/raspi-config/init_resize.sh", False, True),
        ("init=/usr/lib/raspberrypi-sys-mods/firstboot", False, True), ("resize", True, True),
        ("resize", False, False), ("rootwait", True, False), ("init=/sbin/init", True, False),
    ],
)  # fmt: skip
def test_first_boots_that_renew_a_disk_id_are_known(token, unit, renews):
    held = {"/boot/firmware/cmdline.txt": f"quiet {token}\n", **({RESIZES: "x"} if unit else {})}

    assert traits_of(holding(held), "node3").renews == renews


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("UUID=0badd15c /mnt/usb ext4 defaults 0 2", 1),
        ("UUID=0badd15c /mnt/usb ext4", 1),
        ("UUID=0badd15c /mnt/usb ext4 defaults,nofail,x-systemd.device-timeout=10s 0 2", 0),
        ("LABEL=data /mnt/usb ext4 noauto", 0),
        ("LABEL=other /boot/firmware vfat rw,nofail 0 2", 1),
    ],
)
def test_a_disk_that_is_not_on_the_card_must_not_be_waited_for(line, told):
    found = [f.message for f in rules_mounts.mounts(holding({"/etc/fstab": f"{line}\n"}))]

    assert found.count(f"`{line.split()[0]}` is not on this card") == told


@pytest.mark.parametrize(
    ("path", "text", "told"),
    [
        ("/etc/systemd/system/data.mount", "[Mount]\nWhat=/dev/disk/by-partuuid/01020304-03\n", 1),
        ("/etc/crypttab", "data PARTUUID=01020304-03 none\n", 1),
        ("/etc/systemd/system/data.mount", "[Mount]\nWhat=/dev/disk/by-partuuid/99020304-03\n", 0),
        ("/etc/fstab", "PARTUUID=01020304-02 / ext4 defaults 0 1\n", 0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("renews", [True, False])
def test_what_would_lose_its_partition_at_the_first_boot_is_told(path, text, told, renews):
    token = "init=/usr/lib/raspberrypi-sys-mods/firstboot" if renews else "quiet"
    card = holding({"/boot/firmware/cmdline.txt": token, path: text})

    found = [(f.rule, f.path) for f in rules_mounts.renewed(card)]

    assert found == [("PI203", path)] * (told and renews)


@pytest.mark.parametrize(("start", "told"), [(1, 0), (20 << 20, 1)])
def test_a_partition_behind_the_root_is_told(start, told):
    root = partition(2, 8 << 20, 8 << 20)
    table = dataclasses.replace(TABLE, partitions=(partition(1, start, 4096), root))

    assert [f.rule for f in rules_boot.growth(holding({}, table))] == ["PI206"] * told


@pytest.mark.parametrize(
    ("text", "link", "told"),
    [("[Install]\nWantedBy=cloud-init.target\n", False, 1), ("[Install]\n", True, 0), ("", False, 0)],
)  # fmt: skip
def test_a_part_of_cloud_init_that_nothing_starts_is_told(text, link, told):
    name = "cloud-config.service"
    held = {f"/usr/lib/systemd/system/{name}": text}
    if link:
        held[f"/etc/systemd/system/cloud-init.target.wants/{name}"] = text

    assert [f.rule for f in rules_seed.switches(holding(held))] == ["PI209"] * told


PROFILE = "/etc/NetworkManager/system-connections/own.nmconnection"
KEYFILE = "[connection]\nid=own\n"


@pytest.mark.parametrize(
    ("path", "text", "mode", "uid", "told"),
    [
        (PROFILE, KEYFILE, 0o600, 0, 0), (PROFILE, KEYFILE, 0o644, 0, 1), (PROFILE, KEYFILE, 0o600, 1000, 1),
        (PROFILE, "id=own\n", 0o600, 0, 1), ("/etc/netplan/own.yaml", "network: {wifis: {password: x}}\n", 0o600, 0, 0),
        ("/etc/netplan/own.yaml", "network: {wifis: {password: x}}\n", 0o644, 0, 1),
        ("/etc/netplan/own.yaml", "network: {version: 2}\n", 0o644, 0, 0),
        ("/etc/netplan/own.yaml", "network: [\n", 0o600, 0, 1),
    ],
)  # fmt: skip
def test_a_profile_that_is_ignored_or_tells_its_key_is_told(path, text, mode, uid, told):
    card = holding({path: text})
    seen = dataclasses.replace(card.root[path], mode=mode, uid=uid)
    card = dataclasses.replace(card, root={path: seen})

    assert [(f.rule, f.path) for f in rules_network.profiles(card)] == [("PI212", path)] * told


SHARE = "/etc/systemd/system/work.mount"


@pytest.mark.parametrize("kind", ["nfs4", "ext4"])
@pytest.mark.parametrize("helper", [True, False])
@pytest.mark.parametrize("path", ["/etc/fstab", SHARE])
def test_a_share_without_its_helper_is_told(kind, helper, path):
    text = {
        "/etc/fstab": f"10.0.0.1:/work /work {kind} defaults 0 0\n",
        SHARE: f"[Mount]\nWhat=10.0.0.1:/work\nWhere=/work\nType={kind}\n",
    }[path]
    card = holding({path: text} | ({"/usr/sbin/mount.nfs": "x"} if helper else {}))
    above = dict.fromkeys(("/usr", "/usr/sbin"), FOLDER)
    card = dataclasses.replace(card, root={**card.root, **above})

    told = kind == "nfs4" and not helper
    assert [(f.rule, f.path) for f in rules_mounts.helpers(card)] == [("PI223", path)] * told


def test_the_roster_of_the_odd_one_out_is_told():
    cards = {n: traits(n, i) for i, n in enumerate("abc")}
    cards["b"] = traits("b", 1, roster={"/etc/hosts": "old"})

    assert {n: [f.rule for f in each] for n, each in compared(cards).items()} == {"b": ["PI306"]}


# -- what programs read ------------------------------------------------------------------------------

words = st.text(st.characters(exclude_categories=()), max_size=20)


@given(words, words, words)
def test_whatever_an_image_holds_cannot_break_a_report(name, path, message):
    verdict = Verdict(
        name=name,
        file=path,
        build="",
        notes=(message,),
        findings=(Finding("PI101", path, message),),
    )

    ET.fromstring(formats.junit([verdict]))
    document = json.loads(formats.sarif([verdict], "1"))
    (line,) = formats.github([verdict])
    lines = list(formats.text([verdict]))

    assert document["runs"][0]["results"][0]["ruleId"] == "PI101"
    assert "\n" not in line
    assert all(char.isprintable() or char > "\x9f" for text in lines for char in text)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("PermitRootLogin maybe", "takes forced-commands-only, no, prohibit-password, without-password, yes"),
        ("passwordauthentication=off", "sshd takes no, yes"), ("Port ssh", "sshd takes a number"),
        ("LogLevel LOUD", "debug3"), ("AddressFamily inet4", "sshd takes any, inet, inet6"),
        ("PermitRotLogin no", "does not know"), ("UsePAM", "has no value"),
    ],
)  # fmt: skip
def test_what_sshd_does_not_take_is_told_with_what_it_does(line, words):
    found = list(rules_access.ssh_config(of_sshd(line)))

    assert [(f.rule, f.path) for f in found] == [("PI217", "/etc/ssh/sshd_config")]
    assert words in found[0].message


def of_sshd(text):
    """A view of an image whose ssh server has this configuration."""
    made = view({"/etc/ssh/sshd_config": dataclasses.replace(FILE, attributes={})})
    return dataclasses.replace(made, reader=lambda _path: text.encode())


def test_what_sshd_takes_is_nothing_to_tell():
    """As OpenSSH reads it: words in any case, quotes, comments behind, blocks."""
    text = """
    Port 22
    PermitRootLogin prohibit-password
    passwordauthentication "No"   # keys alone
    X11Forwarding=yes
    AllowTcpForwarding local
    LogLevel VERBOSE
    Compression delayed
    Match User ada
        PermitTTY no
    """

    assert list(rules_access.ssh_config(of_sshd(text))) == []


scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(scalars, inner, max_size=3)
)
keys = st.sampled_from(
    ["network", "ethernets", "addresses", "wifis", "version", "users", "name", "hostname", "instance-id", "eth0",
     "datasource", "datasource_list", "NoCloud", "seedfrom", "manage_etc_hosts", "local-hostname"]
)  # fmt: skip
mappings = st.recursive(
    values,
    lambda inner: st.dictionaries(keys, inner, max_size=4) | st.lists(inner, max_size=3),
    max_leaves=20,
)
FILES = (slots.USER_DATA, slots.META_DATA, slots.NETWORK, "/etc/cloud/cloud.cfg")
TEXTS = ("/etc/passwd", "/etc/shadow", "/etc/group", "/etc/sudoers", "/etc/fstab", "/etc/hosts",
         "/etc/ssh/sshd_config", slots.HOST_KEY, slots.HOST_PUBLIC, "/boot/firmware/cmdline.txt",
         "/boot/firmware/config.txt", "/etc/machine-id")  # fmt: skip


@given(
    st.dictionaries(
        st.sampled_from(FILES),
        mappings | keys.flatmap(lambda k: st.fixed_dictionaries({k: mappings})),
    ),
    st.dictionaries(st.sampled_from(TEXTS), st.text(alphabet="a0:/= \n#()[]%@\\x,.", max_size=40)),
)
def test_no_rule_stumbles_over_what_an_image_may_hold(documents, texts):
    held = {path: yaml.safe_dump(document).encode() for path, document in documents.items()}
    held |= {path: text.encode() for path, text in texts.items()}
    tree = {path: dataclasses.replace(FILE, size=len(data)) for path, data in held.items()}
    image = View(table=TABLE, place=PLACE, boot_sector="", root=tree, firmware={}, reader=held.get)

    rules = (rules_boot, rules_mounts, rules_access, rules_seed, rules_network)
    for rule in (rule for room in rules for rule in room.RULES):
        assert all(finding.rule in RULES for finding in rule(image))
    for rule in rules_seed.OF_NODE:
        assert all(finding.rule in RULES for finding in rule(image, rules_seed.Who("node3", "i")))
    assert traits_of(image, "node3").disk_id == TABLE.disk_id


def test_what_is_from_the_future_is_told():
    now = int(time.time())

    def found(*paths, days=3):
        late = dataclasses.replace(FILE, mtime=now + days * 86400)
        return list(rules_boot.future(view({"/a": FILE} | dict.fromkeys(paths, late))))

    (epoch,), (other,) = found("/usr/lib/clock-epoch"), found("/etc/passwd")
    assert (epoch.rule, epoch.path, epoch.message.endswith("the clock would go")) == (
        "PI225",
        "/usr/lib/clock-epoch",
        True,
    )
    assert (other.path, other.message.endswith("which is to come")) == ("/etc/passwd", True)
    assert found("/etc/passwd", "/usr/lib/clock-epoch", days=0) == []
    many = found("/usr/lib/clock-epoch", *(f"/{n}" for n in range(50)))
    assert [f.path for f in many] == ["/usr/lib/clock-epoch", ""]
    assert many[1].message.startswith("51 files")


@pytest.mark.parametrize(
    ("after", "before", "told"),
    [
        (0, (1 << 64) - 1, []), (-10, 10, []), (-20, -10, ["it has expired on "]), (10, 20, ["it begins to count on "]),
        (1 << 60, (1 << 64) - 1, ["it begins to count on "]),
    ],
)  # fmt: skip
def test_a_certificate_that_does_not_count_today_is_told(after, before, told):
    """Days from today, or far away."""
    today = int(time.time())
    after, before = (n if n == 0 or n > 1 << 32 else today + n * 86400 for n in (after, before))
    key, authority = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    certificate = (
        SSHCertificateBuilder().public_key(key.public_key()).serial(1).type(SSHCertificateType.HOST).key_id(b"x")
        .valid_principals([b"node3"]).valid_after(after).valid_before(before).sign(authority)
    )  # fmt: skip
    held = {
        slots.HOST_KEY: key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
        slots.HOST_PUBLIC: key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        slots.HOST_CERTIFICATE: certificate.public_bytes(),
    }
    tree = {path: Seen(kind="file", mode=0o600, size=1) for path in held}
    card = dataclasses.replace(view(tree), reader=held.get)

    found = [f.message for f in rules_seed.host_key(card, rules_seed.Who("node3"))]

    assert len(found) == len(told)
    assert all(said.startswith(due) for said, due in zip(found, told, strict=True))


@pytest.mark.parametrize(
    ("line", "links", "told"),
    [
        ("ada:x:1000:1000::/home/ada:/bin/bash", {}, 0), ("ada:x:1000:1000::/home/ada:/bin/zsh", {}, 1),
        ("root:x:0:0::/root:/bin/zsh", {}, 1), ("sys:x:3:3::/:/bin/zsh", {}, 0), ("ada:x:1000:1000::/home/ada:", {}, 0),
        ("ada:x:1000:1000::/home/ada:/bin/bash", {"/etc/nologin": FILE}, 1),
        ("ada:x:1000:1000::/home/ada:/bin/sh", {"/usr/bin/sh": Seen(kind="link", mode=0o777, target="bash")}, 0),
        ("ada:x:1000:1000::/home/ada:/bin/sh", {"/usr/bin/sh": Seen(kind="link", mode=0o777, target="sh")}, 1),
    ],
)  # fmt: skip
def test_who_gets_no_shell_is_told(line, links, told):
    usr = Seen(kind="link", mode=0o777, target="usr/bin")
    tree = {"/bin": usr, "/usr": FOLDER, "/usr/bin": FOLDER, "/usr/bin/bash": FILE, **links}
    card = dataclasses.replace(view(tree), reader={"/etc/passwd": line.encode()}.get)

    assert [f.rule for f in rules_access.logins(card)] == ["PI226"] * told


def test_a_stamp_that_changes_what_is_not_its_own_is_told(small_master):
    with open_ext4(small_master, SMALL_ROOT_START) as ext4:
        ((_, own, size),) = ext4.extents(f"{SEED}/meta-data")
        ((_, other, _),) = ext4.extents("/etc/fstab")
    boot = Partition(number=1, start=BOOT_START, size=SMALL_BOOT_SIZE, type="0c")
    good = [Patch(own, b"x" * size), Patch(0x1B8, b"abcd"), Patch(BOOT_START + 5, b"x")]

    def found(patches):
        return [
            f.rule
            for f in disks.strays(
                small_master, patches, boot, SMALL_ROOT_START, [f"{SEED}/meta-data"]
            )
        ]

    assert found(good) == []
    assert found([*good, Patch(other, b"x")]) == ["PI004"]
    assert found([Patch(own, b"x" * (size + 1))]) == ["PI004"]
    assert disks.patched_id(good) == "64636261"


def test_many_findings_of_one_rule_are_summed_up():
    findings = tuple(Finding("PI103", f"/{n}", "gone") for n in range(50))
    verdict = Verdict(name="n", file="f", build="", notes=(), findings=findings)

    lines = list(formats.text([verdict]))

    assert len(lines) == 22
    assert lines[-1].split() == ["PI103", "and", "30", "more", "(`--json`", "has", "them", "all)"]
    assert len(verdict.to_json()["findings"]) == 50


def test_every_rule_has_its_page(request):
    folder = request.config.rootpath / "docs" / "rules"
    for rule, title in RULES.items():
        page = (folder / f"{rule}.md").read_text()
        assert page.startswith(f"# {rule}: {title}\n")
        assert all(f"**{part}.** " in page for part in ("What", "Why", "How to mend", "Source"))
        assert f"| [{rule}]({rule}.md) | {title} |" in (folder / "README.md").read_text()
    assert len(list(folder.glob("PI*.md"))) == len(RULES)


@pytest.mark.parametrize(
    ("later", "seed", "told"),
    [("", True, 1), ("network: null\n", True, 0), ("", False, 0)],
)
def test_a_network_that_goes_before_the_seeds_is_told(later, seed, told):
    folder = "/etc/cloud/cloud.cfg.d"
    held = {
        "/etc/cloud/cloud.cfg": "users: []\n",
        f"{folder}/50-disable.cfg": "network: {config: disabled}\n",
        f"{folder}/99-zz-piimage.cfg": f"locale: false\n{later}",
    }
    if seed:
        held["/var/lib/cloud/seed/nocloud/network-config"] = "network: {version: 2}\n"

    assert [f.rule for f in rules_seed.settings(holding(held))] == ["PI209"] * told
