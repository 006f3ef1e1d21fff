"""Apply: every kind of entry, and a base's own user renamed, in one launch; read back with other tools."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import phony_facts
import pytest
from phony import ROOT, ROOT_START, Node, make_phony
from readback import check, content, debugfs, fat_content, fat_names, stats, tool

from piimage.apply import apply
from piimage.bases.facts_reader import read_facts
from piimage.cluster import Sudo
from piimage.delta import Absent, Delta, Directory, File, Slot, Symlink, Tree
from piimage.disk import ext4, fat
from piimage.disk.sparse import copy_sparse
from piimage.errors import ImageError
from piimage.plan.plan import VariantPlan, plan_variant
from piimage.progress import Quiet

if TYPE_CHECKING:
    from pathlib import Path

    from piimage.delta import Entry
    from piimage.facts import Facts

LABEL = "system_u:object_r:etc_t:s0"
MTIME = 1_234_567_890


def text(content: str, mode: int = 0o644, uid: int = 0, gid: int = 0) -> Node:
    return Node(content.encode(), mode, uid, gid)


def more(path: str, addition: str) -> Node:
    """A default file of the phony image with lines added."""
    data = ROOT[path].data
    assert isinstance(data, bytes)
    return replace(ROOT[path], data=data + addition.encode())


#: As on Raspberry Pi OS, and a second user whose numbers the first one is to have.
RASPIOS = {
    "/etc/passwd": more("/etc/passwd", "ops:x:1001:1001:,,,:/home/ops:/bin/bash\n"),
    "/etc/shadow": more("/etc/shadow", "ops:$6$stock$hash:20300:0:99999:7:::\n"),
    "/etc/group": more("/etc/group", "ops:x:1001:\n"),
    "/etc/gshadow": more("/etc/gshadow", "ops:!::\n"),
    "/etc/subuid": text("pi:100000:65536\nops:165536:65536\n"),
    "/etc/subgid": text("pi:100000:65536\nops:165536:65536\n"),
    "/etc/sudoers.d/010_pi-nopasswd": text("pi ALL=(ALL) NOPASSWD: ALL\n", 0o440),
    "/etc/sudoers.d/010_at-export": text('Defaults env_keep += "NO_AT_BRIDGE"\n', 0o440),
    "/etc/lightdm/lightdm.conf": text("[Seat:*]\nautologin-user=pi\nautologin-session=x\n"),
    "/etc/systemd/system/getty@tty1.service.d/autologin.conf": text(
        "[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin pi --noclear %I $TERM\n"
    ),
    "/home/pi": Node(None, 0o750, 1000, 1000),
    "/home/pi/.Xauthority": text("cookie", 0o600, 1000, 1000),
    "/home/pi/.config": Node(None, 0o700, 1000, 1000),
    "/home/pi/.config/deep/er": text("deep\n", 0o640, 1000, 1000),
    "/home/pi/link": Node(".bashrc", 0o777, 1000, 1000),
    "/home/pi/borrowed": text("ops's\n", 0o640, 1001, 1001),
    "/home/pi/system": text("root's\n"),
    "/home/ops": Node(None, 0o700, 1001, 1001),
    "/home/ops/.profile": text("# ops\n", 0o644, 1001, 1001),
    "/var/mail": Node(None, 0o2775, 0, 8),
    "/var/mail/pi": text("mail\n", 0o660, 1000, 8),
    "/var/spool/cron/crontabs": Node(None, 0o1730, 0, 105),
    "/var/spool/cron/crontabs/pi": text("@daily true\n", 0o600, 1000, 105),
    "/opt/shared/of-pi": text("pi's\n", 0o664, 1000, 1001),
    "/opt/shared/of-ops": text("ops's\n", 0o664, 1001, 1000),
}
#: What the hand-made Delta meets.
MET = {
    "/srv/doomed/deep/file": text("gone\n"),
    "/srv/doomed/other": text("gone\n"),
    "/srv/doomed-file": text("gone\n"),
    "/srv/doomed-link": Node("spared"),
    "/srv/spared/file": text("stays\n"),
    "/srv/dir-to-file/below": text("gone\n"),
    "/srv/dir-to-link/below": text("gone\n"),
    "/srv/file-to-dir": text("gone\n"),
    "/srv/link-to-dir": Node("spared"),
    "/srv/link-to-file": Node("spared/file"),
    "/srv/old-mode": Node(None, 0o700, 5, 5),
    "/srv/old-mode/kept": text("stays\n"),
    "/srv/private": Node(None, 0o700, 7, 7),
    "/srv/tree": Node(None, 0o750, 3000, 3000),
    "/srv/tree/file": text("moves\n", 0o640, 3000, 3000),
    **{f"/srv/turning/{n}": text("turns\n", 0o600, n) for n in (5000, 5001, 5002)},
    "/srv/turned-elsewhere": text("turns\n", 0o600, 5002),
    "/srv/elsewhere": text("stays\n", 0o640, 3000, 3001),
}
ODD = [
    "/srv/with space",
    "/srv/with'single",
    "/srv/with$(touch pwned)`touch pwned`",
    "/srv/with;semi&and|or",
    "/srv/-rf",
    "/srv/back\\slash",
    "/srv/gr\u00fc\u00df \u6f22\u5b57 \U0001f600",
    "/srv/" + "long/" * 40 + "x" * 120,
]
HAND_MADE: dict[str, Entry] = {
    "/srv/new": File(b"new\n", mode=0o4755, uid=12, gid=34, mtime=MTIME),
    "/srv/empty": File(b"", mode=0o600),
    "/srv/large": File(bytes(range(256)) * 8192, mode=0o644, uid=70_000, gid=3_000_000),
    "/srv/labelled": File(b"x", label=LABEL),
    "/srv/slot": Slot(8192, mode=0o600, uid=1, gid=2),
    "/srv/dir": Directory(mode=0o2750, uid=3, gid=4),
    "/srv/dir/below": File(b"below\n"),
    "/srv/missing/parents/file": File(b"deep\n"),
    "/srv/private/new": File(b"in private\n"),
    "/srv/old-mode": Directory(mode=0o755, uid=6, gid=6),
    "/srv/link": Symlink("/nowhere/at all", uid=9, gid=9),
    "/srv/doomed": Absent(),
    "/srv/doomed-file": Absent(),
    "/srv/doomed-link": Absent(),
    "/srv/never-was": Absent(),
    "/srv/dir-to-file": File(b"now a file\n"),
    "/srv/dir-to-link": Symlink("spared"),
    "/srv/file-to-dir": Directory(),
    "/srv/file-to-dir/below": File(b"now below\n"),
    "/srv/link-to-dir": Directory(mode=0o711),
    "/srv/link-to-file": File(b"no longer a link\n"),
    "/home/deep/down/moved": Tree("/srv/tree", uid_map=((3000, 4000),), gid_map=((3000, 4001),)),
    "/home/deep/down/moved/added": File(b"added\n", uid=4000),
    "/srv/turned": Tree("/srv/turning", uid_map=((5000, 5001), (5001, 5002), (5002, 5000))),
    "/boot/firmware/notes.txt": File(b"on the FAT\n"),
    "/boot/firmware/config.txt": File(b"arm_64bit=1\n", mode=0o755),
    "/boot/firmware/Mixed Case Name.txt": File(b"long name\n"),
    "/boot/firmware/overlays/new/deep.dtbo": File(b"\xd0\x0d\xfe\xed"),
    "/boot/firmware/bootcode.bin": Absent(),
    **{path: File(path.encode(), mode=0o640, uid=1) for path in ODD},
    **{f"/srv/many/{number:04}-{'x' * 60}": File(b"%d" % number) for number in range(1200)},
}


#: Entries of access control lists by path, `default` for those of a directory's files to come; as setfacl(1) has them.
LISTS = {
    "/srv/turning": [("access", "user:5000:rw-,group:3000:r--"), ("default", "user:5001:r--")],
    "/srv/elsewhere": [("access", "user:3000:r--,user:5002:r--")],
}


def with_lists(image: Path) -> None:
    """Set them: on ext4 an entry has a tag, its permissions and, for users and groups, a number (linux/posix_acl.h)."""
    tags = {"user": 2, "group": 8}
    modes = {path: found.mode for path, found in stats(image, LISTS).items() if found}
    for path, lists in LISTS.items():
        for kind, words in lists:
            owner, group, others = (modes[path] >> shift & 7 for shift in (6, 3, 0))
            usual = {1: owner, 4: group, 16: group, 32: others}  # 16 is the mask
            entries = [struct.pack("<HHI", tag, bits, 0xFFFFFFFF) for tag, bits in usual.items()]
            for word in words.split(","):
                who, number, mode = word.split(":")
                bits = sum(bit for bit, sign in zip((4, 2, 1), mode, strict=True) if sign != "-")
                entries.append(struct.pack("<HHI", tags[who], bits, int(number)))
            entries.sort(key=lambda e: struct.unpack("<HHI", e)[::2])
            value = image.with_suffix(".acl")
            value.write_bytes(struct.pack("<I", 2) + b"".join(entries))
            line = f"ea_set -f {value} {path} system.posix_acl_{kind}"
            tool("debugfs", "-w", "-R", line, f"{image}?offset={ROOT_START}")


def lists_of(image: Path, path: str, kind: str, scratch: Path) -> list[tuple[int, int, int]]:
    value = scratch / "acl"
    debugfs(image, f"ea_get -f {value} {path} system.posix_acl_{kind}")
    return [e for e in struct.iter_unpack("<HHI", value.read_bytes()[4:]) if e[0] in (2, 8)]


@dataclass(frozen=True)
class Applied:
    before: Path
    image: Path
    facts: Facts
    plan: VariantPlan
    delta: Delta


@pytest.fixture(scope="session")
def applied(tmp_path_factory, launches) -> Applied:
    home = tmp_path_factory.mktemp("applied")
    before = make_phony(home / "before.img", root={**RASPIOS, **MET})
    with_lists(before)
    image = home / "after.img"
    copy_sparse(before, image)
    facts = read_facts(before, image_id="b" * 64)
    cluster = phony_facts.cluster(
        users=(
            phony_facts.user(uid=1500, rename_from="auto", sudo=Sudo.NOPASSWD, groups=("gpio",)),
            phony_facts.user("ops", 1001, sudo=Sudo.PASSWORD),
            phony_facts.user("third", 1003),
        )
    )
    plan = plan_variant(cluster, cluster.head.role, facts)
    delta = plan.delta.merge(
        Delta.of("hand", HAND_MADE), replacing=frozenset({"/boot/firmware/config.txt"})
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIBGUESTFS_HV", str(launches.hypervisor))
        apply(image, delta, facts, Quiet())
    return Applied(before, image, facts, plan, delta)


def test_file_systems_are_clean(applied: Applied, tmp_path):
    check(applied.image, tmp_path)


def owner(entry: File | Slot | Directory | Symlink) -> tuple[int, int]:
    return entry.uid, entry.gid


def test_every_entry_is_there_as_it_was_asked_for(applied: Applied):
    wanted = {p: e for p, e in applied.delta if not p.startswith("/boot/firmware/")}
    found = stats(applied.image, [p for p in wanted if '"' not in p])

    for path, entry in wanted.items():
        it = found[path]
        match entry:
            case Absent():
                assert it is None, path
            case Tree():
                assert it.kind in ("dir", "file"), path
            case Symlink():
                assert (it.kind, it.uid, it.gid) == ("link", *owner(entry)), path
                assert it.target == entry.target, path
            case Directory():
                assert (it.kind, it.mode, it.uid, it.gid) == ("dir", entry.mode, *owner(entry)), (
                    path
                )
            case File():
                size = len(entry.content)
                assert (it.kind, it.mode, it.size) == ("file", entry.mode, size), path
                assert (it.uid, it.gid, it.links) == (*owner(entry), 1), path
            case Slot():
                assert (it.kind, it.mode, it.size) == ("file", entry.mode, entry.size), path
                assert (it.uid, it.gid) == owner(entry), path


def test_contents(applied: Applied, tmp_path):
    paths = [p for p, e in applied.delta if isinstance(e, File | Slot)]
    guest = [p for p in paths if not p.startswith("/boot/firmware/")]
    found = ext4.read_files(applied.image, ROOT_START, guest)
    for path in guest:
        match applied.delta.entries[path]:
            case File(content=wanted):
                assert found[path] == wanted, path
            case Slot(size=size):
                assert found[path] == b"\n" * size, path

    for path in ("/srv/new", "/srv/large", ODD[0], ODD[1], ODD[6], ODD[7]):
        asked = HAND_MADE[path]
        assert isinstance(asked, File)
        assert content(applied.image, path, tmp_path) == asked.content


def test_times_and_labels(applied: Applied):
    found = stats(applied.image, ["/srv/new", "/srv/empty", "/srv/dir"])

    assert found["/srv/new"].mtime == MTIME
    assert found["/srv/empty"].mtime == found["/srv/dir"].mtime == applied.facts.made
    assert LABEL in debugfs(applied.image, "ea_get /srv/labelled security.selinux")
    assert "security.selinux" not in debugfs(applied.image, "ea_list /srv/new")


def test_parents_that_were_there_are_left_alone(applied: Applied):
    found = stats(
        applied.image,
        ["/srv/private", "/srv/missing", "/srv/missing/parents", "/srv/old-mode/kept"],
    )

    private, missing = found["/srv/private"], found["/srv/missing"]
    assert (private.mode, private.uid, private.gid) == (0o700, 7, 7)
    assert (missing.mode, missing.uid, missing.gid) == (0o755, 0, 0)
    assert found["/srv/missing/parents"].mode == 0o755
    assert found["/srv/old-mode/kept"] is not None


def test_the_shell_saw_no_name_as_a_command(applied: Applied):
    assert not [
        p
        for p in ext4.list_tree(applied.image, ROOT_START, ["/"])
        if "pwned" in p.rsplit("/", 1)[-1] and p not in ODD
    ]


def test_a_moved_tree(applied: Applied):
    moved = "/home/deep/down/moved"
    found = stats(
        applied.image, [moved, f"{moved}/file", f"{moved}/added", "/srv/tree", "/srv/elsewhere"]
    )

    assert found["/srv/tree"] is None
    assert (found[moved].mode, found[moved].uid, found[moved].gid) == (0o750, 4000, 4001)
    assert (found[f"{moved}/file"].uid, found[f"{moved}/file"].gid) == (4000, 4001)
    assert (found["/srv/elsewhere"].uid, found["/srv/elsewhere"].gid) == (4000, 3001)
    assert found[f"{moved}/added"].gid == 0


def test_numbers_that_change_places(applied: Applied):
    paths = [f"/srv/turned/{n}" for n in SWAPPED]
    found = stats(applied.image, [*paths, "/srv/turned-elsewhere"])

    assert [found[path].uid for path in paths] == list(SWAPPED.values())
    assert found["/srv/turned-elsewhere"].uid == 5000


def test_numbers_in_access_control_lists_change_too(applied: Applied, tmp_path):
    image = applied.image

    assert lists_of(applied.before, "/srv/turning", "access", tmp_path) == [
        (2, 6, 5000),
        (8, 4, 3000),
    ]
    assert lists_of(image, "/srv/turned", "access", tmp_path) == [(2, 6, 5001), (8, 4, 4001)]
    assert lists_of(image, "/srv/turned", "default", tmp_path) == [(2, 4, 5002)]
    assert lists_of(image, "/srv/elsewhere", "access", tmp_path) == [(2, 4, 4000), (2, 4, 5000)]


def test_the_firmware_partition(applied: Applied):
    image = applied.image

    names = fat_names(image)
    assert {"notes.txt", "Mixed Case Name.txt", "overlays/new/deep.dtbo"} <= names
    assert "bootcode.bin" not in names
    assert fat_content(image, "notes.txt") == b"on the FAT\n"
    assert fat_content(image, "config.txt") == b"arm_64bit=1\n"
    assert fat_content(image, "Mixed Case Name.txt") == b"long name\n"
    before = fat.read_files(applied.before, 4 << 20, ["overlays/disable-bt.dtbo"])
    assert fat_content(image, "overlays/disable-bt.dtbo") == before["overlays/disable-bt.dtbo"]


def touched(delta: Delta, path: str) -> bool:
    """Whether the delta speaks of the path, of something above it, or of what it was moved from."""
    places = [p for p, _ in delta] + [e.source for _, e in delta if isinstance(e, Tree)]
    return any(path == p or path.startswith(p + "/") for p in places)


SWAPPED = {5000: 5001, 5001: 5002, 5002: 5000}
MAPS = ({1000: 1500, 3000: 4000, **SWAPPED}, {1000: 1500, 3000: 4001})


def test_nothing_else_changed(applied: Applied):
    before = ext4.list_tree(applied.before, ROOT_START, ["/"])
    after = ext4.list_tree(applied.image, ROOT_START, ["/"])
    files = [p for p, f in before.items() if f.kind == "file"]
    contents = [ext4.read_files(i, ROOT_START, files) for i in (applied.before, applied.image)]

    rest = [p for p in before if not touched(applied.delta, p)]
    assert len(rest) > 50
    uids, gids = MAPS
    for path in rest:
        was = before[path]
        assert after[path] == replace(
            was, uid=uids.get(was.uid, was.uid), gid=gids.get(was.gid, was.gid)
        ), path
        assert contents[0].get(path) == contents[1].get(path), path
    parents = {p.rsplit("/", n)[0] for p, _ in applied.delta for n in range(1, p.count("/"))}
    new = {p for p in after if p not in before and not touched(applied.delta, p)}
    assert new <= parents


def head(path):
    return hashlib.sha256(path.read_bytes()[: 4 << 20]).hexdigest()


def test_the_table_and_the_gap_are_untouched(applied: Applied):
    assert head(applied.before) == head(applied.image)


def rows(applied: Applied, name):
    found = ext4.read_files(applied.image, ROOT_START, [f"/etc/{name}"])[f"/etc/{name}"]
    return {line.split(":")[0]: line.split(":") for line in found.decode().splitlines()}


def test_the_first_user_is_renamed_everywhere(applied: Applied):
    assert rows(applied, "passwd")["federico"][2:] == [
        "1500",
        "1500",
        "",
        "/home/federico",
        "/bin/bash",
    ]
    assert rows(applied, "passwd")["ops"][2:4] == ["1001", "1001"]
    assert rows(applied, "group")["federico"][2] == "1500"
    assert rows(applied, "group")["ops"][2] == "1001"
    assert "federico" in rows(applied, "group")["gpio"][3].split(",")
    for name in ("passwd", "shadow", "group", "gshadow", "subuid", "subgid"):
        assert "pi" not in rows(applied, name)
        assert all("pi" not in ",".join(row[3:]).split(",") for row in rows(applied, name).values())
    assert rows(applied, "subuid")["federico"][1:] == ["100000", "65536"]
    assert rows(applied, "shadow")["federico"][1][:1] in "!*"
    assert rows(applied, "shadow")["ops"][1][:1] in "!*"
    found = stats(applied.image, ["/etc/shadow", "/etc/gshadow", "/etc/passwd"])
    assert [(s.mode, s.gid) for s in found.values()] == [(0o640, 42), (0o640, 42), (0o644, 0)]


def test_the_home_is_moved_with_its_owners(applied: Applied):
    home = "/home/federico"
    names = ["", "/.bashrc", "/.config", "/.config/deep/er", "/link", "/borrowed", "/system"]
    found = stats(applied.image, [*(home + n for n in names), "/home/pi", f"{home}/.Xauthority"])

    assert found["/home/pi"] is None
    assert found[f"{home}/.Xauthority"] is None
    assert (found[home].mode, found[home].uid, found[home].gid) == (0o750, 1500, 1500)
    for name in names[1:5]:
        assert (found[home + name].uid, found[home + name].gid) == (1500, 1500), name
    assert (found[f"{home}/borrowed"].uid, found[f"{home}/borrowed"].gid) == (1001, 1001)
    assert (found[f"{home}/system"].uid, found[f"{home}/system"].gid) == (0, 0)
    assert found[f"{home}/.config"].mode == 0o700


def test_files_elsewhere_change_hands(applied: Applied):
    found = stats(
        applied.image,
        [
            "/opt/shared/of-pi",
            "/opt/shared/of-ops",
            "/var/mail/federico",
            "/var/spool/cron/crontabs/federico",
            "/var/mail",
            "/home/third",
        ],
    )

    assert (found["/opt/shared/of-pi"].uid, found["/opt/shared/of-pi"].gid) == (1500, 1001)
    assert (found["/opt/shared/of-ops"].uid, found["/opt/shared/of-ops"].gid) == (1001, 1500)
    mail = found["/var/mail/federico"]
    assert (mail.mode, mail.uid, mail.gid) == (0o660, 1500, 8)
    assert found["/var/spool/cron/crontabs/federico"].uid == 1500
    assert (found["/var/mail"].mode, found["/var/mail"].gid) == (0o2775, 8)
    assert (found["/home/third"].mode, found["/home/third"].uid) == (0o700, 1003)


def test_no_trace_of_the_old_name(applied: Applied):
    tree = ext4.list_tree(applied.image, ROOT_START, ["/"])
    assert not [p for p, fact in tree.items() if 1000 in (fact.uid, fact.gid)]
    assert not [p for p in tree if p.rsplit("/", 1)[-1] in ("pi", "010_pi-nopasswd", ".Xauthority")]

    texts = ext4.read_files(applied.image, ROOT_START, [p for p in tree if p.startswith("/etc/")])
    named = [
        p
        for p, c in texts.items()
        if any(
            w == b"pi"
            for w in c.replace(b"=", b" ").replace(b":", b" ").replace(b",", b" ").split()
        )
    ]
    assert named == []
    assert (
        b"--autologin federico" in texts["/etc/systemd/system/getty@tty1.service.d/autologin.conf"]
    )
    assert b"autologin-user=federico" in texts["/etc/lightdm/lightdm.conf"]
    assert texts["/etc/sudoers.d/010_at-export"] == b'Defaults env_keep += "NO_AT_BRIDGE"\n'


def test_one_launch(applied: Applied, launches):
    """The first launch of a session may try a KVM that does not work."""
    assert 1 <= launches.count() <= 4


def test_paths_that_would_break_the_script_are_refused():
    for path in ("/etc/new\nline", "/etc/n\0l", "/etc/../x", "etc/x", "/etc//x", "/lib/x"):
        with pytest.raises(ValueError, match=r"path|written as"):
            Delta.of("hand", {path: File(b"")})


def test_a_link_on_the_way_is_refused_before_any_launch(applied: Applied, launches, tmp_path):
    count = launches.count()
    facts = replace(
        applied.facts,
        files={**applied.facts.files, "/etc/way": phony_facts.link("/usr/share")},
    )

    with pytest.raises(ImageError, match="`/etc/way` is a link, not a directory"):
        apply(tmp_path / "absent.img", Delta.of("hand", {"/etc/way/x": File(b"")}), facts, Quiet())

    assert launches.count() == count
