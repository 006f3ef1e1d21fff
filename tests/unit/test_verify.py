"""Verify below its integration tests: promises, the rules that compare cards, what programs read."""

from __future__ import annotations

import dataclasses
import json
from xml.etree import ElementTree as ET

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from phony import BOOT_START, SEED, SMALL_BOOT_SIZE, SMALL_ROOT_START

from piimage import imprint
from piimage.components import slots
from piimage.delta import Absent, Delta, Directory, File, Slot, Symlink
from piimage.disk.census import Census, Seen
from piimage.disk.ext4 import open_ext4
from piimage.disk.slots import Patch
from piimage.facts import Filesystem, Partition, PartitionTable
from piimage.verify import disks, formats, rules_access, rules_boot, rules_network, rules_seed
from piimage.verify.catalog import RULES, Finding
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

    for rule in (*rules_boot.RULES, *rules_access.RULES, *rules_seed.RULES, *rules_network.RULES):
        assert all(finding.rule in RULES for finding in rule(image))
    for rule in rules_seed.OF_NODE:
        assert all(finding.rule in RULES for finding in rule(image, rules_seed.Who("node3", "i")))
    assert traits_of(image, "node3").disk_id == TABLE.disk_id


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
