from __future__ import annotations

import json

from piimage.bases.catalog import entries
from piimage.bases.known import known_facts, known_names
from piimage.facts import Facts, FileFact, OsRelease, PartitionTable


def facts():
    def file(text):
        return FileFact(kind="file", mode=0o644, uid=0, gid=0, content=text.encode())

    table = PartitionTable(label="dos", disk_id="0" * 8, sector_size=512, size=0, partitions=())
    return Facts(
        image_id="x",
        os=OsRelease(id="debian"),
        architecture="arm64",
        table=table,
        mounts={"/": 2},
        firmware="/boot/firmware",
        files={"/etc/passwd": file("pi:x:1000:1000::/:/bin/sh\n"), "/etc/motd": file("hello")},
        units={},
        packages={},
        network_stack="netplan-networkd",
        timezones=frozenset({"Etc/UTC"}),
    )


def test_a_base_that_is_here_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("PIIMAGE_CACHE", str(tmp_path))
    home = tmp_path / "bases/mine"
    home.mkdir(parents=True)
    (home / "base.json").write_text("{}")
    (home / "facts.json").write_text(json.dumps(facts().to_json()))

    assert known_names() == {*entries(), "mine"}
    found = known_facts("mine")
    assert found is not None
    assert found.text("/etc/passwd") == "pi:x:1000:1000::/:/bin/sh\n"
    assert found.timezones == {"Etc/UTC"}
    assert not found.has("/etc/motd")


def test_what_is_not_here_or_broken_is_not_known(tmp_path, monkeypatch):
    monkeypatch.setenv("PIIMAGE_CACHE", str(tmp_path))
    home = tmp_path / "bases/broken"
    home.mkdir(parents=True)
    (home / "facts.json").write_text('{"version": 1, "files": []}')

    assert known_facts("broken") is None
    assert known_facts("absent") is None
    assert known_facts("/some/file.img") is None
    assert known_names() == {*entries()}
    assert {"debian-13", "raspios-trixie-arm64-lite"} <= known_names()
