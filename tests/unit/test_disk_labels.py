"""Labels filled in without a mount: where there is none, by the inode's number, and the file system stays clean."""

from __future__ import annotations

import pytest
from fixtures.card import SECTOR, Card, Layout, Node, folder, link, text

from piimage.disk import census, ext4
from piimage.disk import labels as labelling
from piimage.disk.table import read_table
from piimage.errors import ImageError
from piimage.progress import Quiet

LAYOUT = Layout(2048, 4096, "boot", "root", "0badcafe", fat="12", root_size=4 << 20)
START = LAYOUT.root_start * SECTOR
OWN, NEW = "system_u:object_r:own_t:s0", "system_u:object_r:new_t:s0:c0,c1023"


@pytest.fixture
def image(tmp_path):
    root = {
        "/a b": text("one\n"),
        "/own": Node(b"two\n", label=OWN),
        "/link": link("a b"),
        "/folder": folder(0o750),
    }
    return Card("labels", LAYOUT, root, {}).write(tmp_path / "card.img")


def labels(image):
    seen = census.of_root(image, START)
    return {path: found.attributes.get("security.selinux") for path, found in seen.items()}


def fill_in(image, label):
    return labelling.fill_in(image, read_table(image).partition(2), label, Quiet())


def test_what_has_a_label_keeps_it_and_all_else_gets_one(image):
    asked = []

    def label(path, kind):
        asked.append((path, kind))
        return None if path == "/lost+found" else NEW

    count = fill_in(image, label)

    found = labels(image)
    assert found.pop("/own") == OWN
    assert found.pop("/lost+found") is None
    assert set(found.values()) == {NEW}
    assert count == len(found)
    assert {("/a b", "file"), ("/link", "link"), ("/folder", "dir"), ("/", "dir")} <= set(asked)
    assert fill_in(image, label) == 0
    ext4.check(image, START)


def test_what_is_no_label_never_reaches_the_tool(image):
    assert fill_in(image, lambda _path, _kind: "x\nrm <2>") == 0


def test_a_tool_that_fails_is_an_error(image, tmp_path, monkeypatch):
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "debugfs").write_text("#!/bin/sh\ncat >/dev/null\necho 'ea_set: No space left' >&2\n")
    (tools / "debugfs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/sbin:/usr/bin:/bin")

    with pytest.raises(ImageError, match=r"cannot label files of `card\.img`"):
        fill_in(image, lambda _path, _kind: NEW)
