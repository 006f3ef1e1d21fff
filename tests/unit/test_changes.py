"""What a Delta changes, path by path, and how that is shown."""

from __future__ import annotations

from dataclasses import replace

import phony_facts as phony
import pytest

from piimage.delta import Absent, Delta, Directory, File, Slot, Symlink, Tree
from piimage.facts import FileFact
from piimage.plan.changes import Change, changes
from piimage.plan.diffs import diff

FACTS = replace(
    phony.debian(),
    files={
        "/etc": phony.folder(),
        "/etc/motd": phony.text("one\ntwo\nthree\n"),
        "/etc/link": phony.link("motd"),
        "/etc/apt": phony.folder(),
        "/etc/apt/a": phony.text("a\n"),
        "/etc/apt/b": phony.folder(),
        "/etc/apt/b/c": phony.text("c\n"),
        "/home": phony.folder(),
        "/home/pi": replace(phony.folder(), uid=1000, gid=1000),
        "/home/pi/.bashrc": replace(phony.text("sh\n"), uid=1000, gid=1000),
        "/var/mail/pi": replace(phony.text(""), uid=1000, gid=8),
        "/var/mail/ada": replace(phony.text(""), uid=1001, gid=8),
        "/boot/firmware": phony.folder(),
        "/boot/firmware/config.txt": phony.text("a=1\n", mode=0o755),
    },
)


def made(entries, filled=None):
    return changes(Delta.of("test", entries), FACTS, filled)


def told(entries, filled=None):
    return [(c.action, c.path) for c in made(entries, filled)]


@pytest.mark.parametrize(
    ("path", "entry", "action"),
    [
        ("/etc/motd", File(b"one\ntwo\nthree\n"), None),
        ("/etc/motd", File(b"one\n"), "change"),
        ("/etc/motd", File(b"one\ntwo\nthree\n", mode=0o600), "change"),
        ("/etc/motd", File(b"one\ntwo\nthree\n", uid=1), "change"),
        ("/etc/motd", File(b"one\ntwo\nthree\n", gid=1), "change"),
        ("/etc/motd", File(b"one\ntwo\nthree\n", mtime=1), None),
        ("/etc/motd", Symlink("issue"), "change"),
        ("/etc/motd", Absent(), "remove"),
        ("/etc/motd", Slot(4096, mode=0o644), "change"),
        ("/etc/new", File(b""), "add"),
        ("/etc/new", Slot(4096), "add"),
        ("/etc/new", Directory(), "add"),
        ("/etc/new", Absent(), None),
        ("/etc/link", Symlink("motd"), None),
        ("/etc/link", Symlink("/etc/motd"), "change"),
        ("/etc/link", File(b""), "change"),
        ("/etc/apt", Directory(), None),
        ("/etc/apt", Directory(0o700), "change"),
        ("/boot/firmware/config.txt", File(b"a=1\n"), None),
        ("/boot/firmware/config.txt", File(b"a=2\n"), "change"),
        ("/boot/firmware/new.txt", File(b""), "add"),
    ],
)
def test_a_path_is_named_if_it_will_be_another(path, entry, action):
    assert told({path: entry}) == ([(action, path)] if action else [])


@pytest.mark.parametrize("entry", [Absent(), File(b""), Symlink("b")])
def test_what_goes_with_a_directory_is_named(entry):
    action = "remove" if isinstance(entry, Absent) else "change"

    assert told({"/etc/apt": entry}) == [
        (action, "/etc/apt"),
        ("remove", "/etc/apt/a"),
        ("remove", "/etc/apt/b"),
        ("remove", "/etc/apt/b/c"),
    ]


def test_what_is_written_below_a_removed_directory_stays():
    assert told({"/etc/apt": Absent(), "/etc/apt/a": File(b"a\n")}) == [
        ("remove", "/etc/apt"),
        ("remove", "/etc/apt/b"),
        ("remove", "/etc/apt/b/c"),
    ]


def test_a_moved_tree_is_named_at_both_places_and_all_new_owners_too():
    tree = Tree("/home/pi", uid_map=((1000, 2000),), gid_map=((1000, 2000),))

    found = {c.path: c for c in made({"/home/ada": tree, "/home/ada/.bashrc": File(b"new\n")})}

    assert {path: c.action for path, c in found.items()} == {
        "/home/ada": "add",
        "/home/ada/.bashrc": "add",
        "/home/pi": "remove",
        "/home/pi/.bashrc": "remove",
        "/var/mail/pi": "change",
    }
    assert found["/home/ada"].after.uid == 2000
    assert found["/home/ada/.bashrc"].after == FileFact(
        kind="file", mode=0o644, uid=0, gid=0, content=b"new\n"
    )
    assert (found["/var/mail/pi"].after.uid, found["/var/mail/pi"].after.gid) == (2000, 8)
    assert {c.owner for c in found.values()} == {"test"}


def test_numbers_that_are_swapped_are_swapped():
    trees = {
        "/home/pi": Tree("/home/pi", uid_map=((1000, 1001),)),
        "/srv/x": Tree("/srv/x", uid_map=((1001, 1000),)),
    }

    found = {c.path: c.after.uid for c in made(trees)}

    assert found == {
        "/home/pi": 1001,
        "/home/pi/.bashrc": 1001,
        "/var/mail/ada": 1000,
        "/var/mail/pi": 1001,
    }


def test_a_filled_slot_is_compared_by_what_it_holds():
    slot = {"/etc/motd": Slot(4096, mode=0o644)}

    assert told(slot, {"/etc/motd": b"one\ntwo\nthree\n"}) == []
    (change,) = made(slot, {"/etc/motd": b"one\ntwo\nfour\n"})
    assert change.slot
    assert diff(change) == ["@@ -1,3 +1,3 @@", " one", " two", "-three", "+four"]


def shown(before, after, path="/etc/x", mode=0o644):
    facts = [None if t is None else phony.text(t, mode) for t in (before, after)]
    return diff(Change(path=path, owner="test", before=facts[0], after=facts[1]))


def test_a_diff_says_when_the_last_line_is_not_ended():
    assert shown("a\n", "a") == ["@@ -1 +1,2 @@", " a", "+\\ no newline at the end"]


def test_a_diff_of_links_and_kinds():
    link, text = phony.link("/dev/null"), phony.text("x\n")

    assert diff(Change(path="/a", owner="t", before=text, after=link)) == [
        "@@ -1 +1 @@",
        "-x",
        "+-> /dev/null",
    ]
    assert diff(Change(path="/a", owner="t", before=None, after=phony.folder())) == []


def test_what_is_not_text_is_counted():
    blob = FileFact(kind="file", mode=0o644, uid=0, gid=0, content=b"\xff\0\1")

    assert diff(Change(path="/a", owner="t", before=None, after=blob)) == [
        "@@ -0,0 +1 @@",
        "+(3 bytes that are not text)",
    ]


def test_nothing_in_a_diff_moves_the_cursor():
    assert shown(None, "a\x1b[2Jb\tc\n") == ["@@ -0,0 +1 @@", "+a?[2Jb\tc"]


HASH = "$y$j9T$abcdefghijk$lmnopqrstuvwxyz0123456789ABCDEFGHIJKLMN"
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("path", "text", "mode", "secret"),
    [
        ("/etc/shadow", f"pi:{HASH}:1:0:9:7:::\n", 0o640, HASH),
        ("/etc/shadow", f"pi:!{HASH}:1:0:9:7:::\n", 0o640, HASH),
        ("/etc/gshadow", f"staff:{HASH}::\n", 0o640, HASH),
        ("/etc/ssh/ssh_host_rsa_key", KEY, 0o600, "c2VjcmV0"),
        ("/etc/key.pem", KEY, 0o644, "c2VjcmV0"),
        ("/etc/wpa_supplicant/x.conf", '  psk="open sesame"\n', 0o600, "open sesame"),
        ("/etc/netplan/x.yaml", "   password: open sesame\n", 0o600, "open sesame"),
        ("/etc/NetworkManager/x", "wifi-psk=open sesame\n", 0o600, "open sesame"),
        ("/etc/chap", "api_token: open sesame\n", 0o640, "open sesame"),
    ],
)
def test_secrets_of_the_base_are_masked(path, text, mode, secret):
    for lines in (shown(None, text, path, mode), shown(text, None, path, mode)):
        assert secret not in "\n".join(lines)
        assert "***" in "\n".join(lines)


def test_what_locks_an_account_is_seen():
    text = f"root:*:1::::::\nada:!:1::::::\npi:!{HASH}:1::::::\n"

    assert shown(None, text, "/etc/shadow", 0o640)[1:] == [
        "+root:*:1::::::",
        "+ada:!:1::::::",
        "+pi:!***:1::::::",
    ]


def test_words_in_place_of_secrets_are_seen():
    assert shown(None, "password: <password hash of ada>\n", mode=0o600)[1:] == [
        "+password: <password hash of ada>"
    ]


def test_a_setting_that_sounds_like_a_secret_is_seen_where_all_can_read_it():
    assert shown(None, "PasswordAuthentication: no\n")[1:] == ["+PasswordAuthentication: no"]
