"""Published images: every format, stamped, checked by their own tools, never in part."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path

import pytest
from phony import SEED, SLOTS, SMALL_ROOT_START

from piimage.artifact import FORMATS, publish, write_manifest
from piimage.disk import ext4
from piimage.disk.intake import import_image
from piimage.disk.slots import Patch, fill, locate
from piimage.disk.sparse import allocated_bytes
from piimage.errors import ImageError, WriteFailedError

REPOSITORY = Path(__file__).parents[2]


@contextmanager
def file_size_limit(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)


@pytest.fixture
def patches(small_master):
    slot_map = locate(small_master, SMALL_ROOT_START, SLOTS)
    return fill(slot_map, {f"{SEED}/meta-data": b"instance-id: node3\n"})


@pytest.mark.parametrize("fmt", FORMATS)
def test_publish(small_master, tmp_path, patches, fmt):
    before = small_master.read_bytes()
    dist = tmp_path / "dist" / "pico5"

    made = publish(small_master, dist, "node3", fmt=fmt, patches=patches)

    assert made.image == dist / f"node3.{fmt}"
    names = {p.name for p in dist.iterdir()}
    assert names == {f"node3.{fmt}", "node3.bmap", "node3.sha256"}
    checked = subprocess.run(
        ["sha256sum", "--strict", "-c", "node3.sha256"],
        cwd=dist,
        capture_output=True,
        text=True,
        check=True,
    )
    assert checked.stdout == f"node3.{fmt}: OK\nnode3.bmap: OK\n"
    assert made.checksums.read_text().startswith(made.sha256)
    assert {p.stat().st_mode & 0o777 for p in dist.iterdir()} == {0o600}
    raw = tmp_path / "raw"
    import_image(made.image, raw)
    stamped = ext4.read_files(raw, SMALL_ROOT_START, [f"{SEED}/meta-data"])[f"{SEED}/meta-data"]
    assert stamped.rstrip(b"\n") == b"instance-id: node3"
    bmaptool = ["bmaptool", "copy", "--bmap", made.bmap, raw, tmp_path / "card"]
    subprocess.run(bmaptool, check=True, capture_output=True)
    ext4.check(tmp_path / "card", SMALL_ROOT_START)
    assert allocated_bytes(made.image) < 8 << 20
    assert small_master.read_bytes() == before


def test_another_format_replaces_the_older_build(small_master, tmp_path):
    publish(small_master, tmp_path, "node3")
    publish(small_master, tmp_path, "node4", mode=0o644)
    publish(small_master, tmp_path, "node3", fmt="img.zst")

    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [
        "node3.bmap",
        "node3.img.zst",
        "node3.sha256",
        "node4.bmap",
        "node4.img",
        "node4.sha256",
    ]
    assert (tmp_path / "node4.img").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_full_disk_leaves_the_older_build(small_master, tmp_path, fmt):
    publish(small_master, tmp_path, "node3", fmt=fmt)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    with file_size_limit(1 << 20), pytest.raises(WriteFailedError, match="are needed"):
        publish(small_master, tmp_path, "node3", fmt=fmt)

    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_patch_outside_leaves_the_older_build(small_master, tmp_path):
    publish(small_master, tmp_path, "node3")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    with pytest.raises(ImageError, match="outside"):
        publish(small_master, tmp_path, "node3", patches=[Patch(1 << 40, b"x")])

    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_checksums_are_there_only_with_all_that_they_list(small_master, tmp_path):
    publish(small_master, tmp_path, "node3")
    (tmp_path / "node3.bmap").unlink()
    (tmp_path / "node3.bmap").mkdir()

    with pytest.raises(WriteFailedError, match=r"node3\.bmap"):
        publish(small_master, tmp_path, "node3", patches=[Patch(0, b"new")])

    assert not (tmp_path / "node3.sha256").exists()


def test_a_full_compressor_is_a_write_error(small_master, tmp_path, monkeypatch):
    fake = tmp_path / "bin" / "xz"
    fake.parent.mkdir()
    fake.write_text(
        "#!/bin/sh\necho 'xz: (stdout): Write error: No space left on device' >&2\nexit 1\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")

    with pytest.raises(
        WriteFailedError, match=r"node3\.img\.xz`: no space left on device \(.* needed"
    ):
        publish(small_master, tmp_path / "dist", "node3", fmt="img.xz")

    assert list((tmp_path / "dist").iterdir()) == []


@pytest.mark.parametrize("title", ["copying", "mapping", "compressing", "hashing"])
def test_kill_9_leaves_no_half_artifact_and_the_next_build_works(small_master, tmp_path, title):
    script = textwrap.dedent(
        f"""
        import os, signal
        from pathlib import Path
        from piimage.artifact import publish
        from piimage.progress import Quiet
        class Killer(Quiet):
            def step(self, title):
                if title.startswith({title!r}):
                    os.kill(os.getpid(), signal.SIGKILL)
                return super().step(title)
        source, target = Path({str(small_master)!r}), Path({str(tmp_path)!r})
        publish(source, target, "node3", fmt="img.zst", progress=Killer())
        """
    )
    killed = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert all(p.name.startswith(".") for p in tmp_path.iterdir())
    assert any(tmp_path.iterdir())

    made = publish(small_master, tmp_path, "node3")

    assert {p.name for p in tmp_path.iterdir()} == {"node3.img", "node3.bmap", "node3.sha256"}
    assert made.sha256 in made.checksums.read_text()


def test_an_unwritable_directory(small_master, tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(WriteFailedError, match="cannot write"):
        publish(small_master, tmp_path / "file", "node3")


def test_manifest_is_stable_json(tmp_path):
    data = {"nodes": {"node3": "a"}, "base": "débian"}

    path = write_manifest(tmp_path, data)

    assert path == tmp_path / "manifest.json"
    assert json.loads(path.read_text()) == data
    assert path.read_text().index("base") < path.read_text().index("nodes")
