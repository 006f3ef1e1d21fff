from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piimage.bases.cache import Cache, cache_root, check_name
from piimage.disk.atomic import require_space
from piimage.errors import PiimageError, ToolFailedError, WriteFailedError
from piimage.progress import Quiet

HOLDER = """
import sys, time
from pathlib import Path
from piimage.bases.cache import Cache
with Cache(Path(sys.argv[1])).{what} as path:
    if path: (path / "big").write_text("x")
    print(path, flush=True)
    sys.stdin.read()
"""


class Heard(Quiet):
    def __init__(self):
        self.titles = []

    @contextmanager
    def step(self, title):
        self.titles.append(title)
        with super().step(title) as task:
            yield task


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


@contextmanager
def other_process(cache, what):
    argv = [sys.executable, "-c", HOLDER.format(what=what), str(cache.root)]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) as child:
        try:
            yield child, child.stdout.readline().strip()
        finally:
            child.kill()


@pytest.mark.parametrize(
    ("own", "xdg", "expected"),
    [
        ("/a/b", "/x", "/a/b"),
        ("", "/x", "/x/piimage"),
        (None, "/x", "/x/piimage"),
        (None, "relative", "/home/someone/.cache/piimage"),
        (None, "", "/home/someone/.cache/piimage"),
        (None, None, "/home/someone/.cache/piimage"),
    ],
)
def test_root_comes_from_the_environment(monkeypatch, own, xdg, expected):
    monkeypatch.setenv("HOME", "/home/someone")
    for name, value in (("PIIMAGE_CACHE", own), ("XDG_CACHE_HOME", xdg)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)

    assert cache_root() == Path(expected)


def test_directories_are_private_and_an_existing_root_keeps_its_mode(tmp_path):
    tmp_path.chmod(0o755)
    fresh, shared = Cache(tmp_path / "deep" / "cache"), Cache(tmp_path)

    modes = [
        stat.S_IMODE(path.stat().st_mode)
        for path in (fresh.directory("bases"), fresh.root, shared.directory("bases"), shared.root)
    ]

    assert modes == [0o700, 0o700, 0o700, 0o755]


def test_a_cache_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(PiimageError, match="cannot use the cache") as caught:
        Cache(tmp_path / "file" / "cache").directory("bases")

    assert "PIIMAGE_CACHE" in caught.value.hint


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "A", "a b", "-a", "é", "a\n"])
def test_names_that_are_refused(name):
    with pytest.raises(PiimageError, match="is not a name for a base"):
        check_name(name)


@given(st.from_regex(r"[a-z0-9][a-z0-9._+-]{0,60}", fullmatch=True))
def test_a_name_stays_one_path_component(name):
    path = Cache(Path("/root")).variant_dir(check_name(name))

    assert path.parent == Path("/root/variants")
    assert path.name == name


def test_scratch_is_private_and_gone_afterwards(cache):
    with cache.scratch() as path:
        (path / "tree").mkdir()
        (path / "tree" / "file").write_text("x")
        mode = stat.S_IMODE(path.stat().st_mode)
        device = path.stat().st_dev

    assert mode == 0o700
    assert device == cache.root.stat().st_dev
    assert list((cache.root / "scratch").iterdir()) == []


def test_scratch_is_gone_after_an_error(cache):
    with pytest.raises(ZeroDivisionError), cache.scratch():
        _ = 1 / 0

    assert list((cache.root / "scratch").iterdir()) == []


def test_a_full_disk_in_scratch_is_a_write_error(cache):
    with pytest.raises(WriteFailedError, match="no room left"), cache.scratch():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_a_killed_process_left_is_swept_and_a_living_one_is_not(cache):
    with other_process(cache, "scratch()") as (child, left):
        with cache.scratch():
            living = Path(left, "big").exists()
        child.kill()
        child.wait()
        still_there = Path(left).exists()
        with cache.scratch():
            pass

    assert (living, still_there, Path(left).exists()) == (True, True, False)


def test_a_lock_waits_for_another_process_and_says_so(cache):
    heard = Heard()
    with other_process(cache, 'lock("import")') as (child, _):
        threading.Timer(0.3, child.kill).start()
        began = time.monotonic()
        with Cache(cache.root, progress=heard).lock("import"):
            waited = time.monotonic() - began

    assert waited > 0.2
    assert heard.titles == ["waiting for another piimage to end (lock `import`)"]


def test_different_locks_do_not_wait(cache):
    heard = Heard()
    with (
        other_process(cache, 'lock("import")'),
        Cache(cache.root, progress=heard).lock("make"),
    ):
        pass

    assert heard.titles == []


def test_what_a_full_disk_says_names_the_cache(cache):
    with pytest.raises(WriteFailedError) as caught, cache.scratch() as path:
        require_space(path, 1 << 60)
    assert caught.value.message.startswith(f"`{cache.root}` has ")
    assert "free some space, or set `PIIMAGE_CACHE`" in caught.value.hint


def test_a_program_that_met_a_full_disk(cache):
    words = "`mke2fs` failed with exit status 1\n    write: No space left on device"

    with (
        pytest.raises(WriteFailedError, match="no room left in the cache") as caught,
        cache.scratch(),
    ):
        raise ToolFailedError(words)
    assert "free some space" in caught.value.hint

    with pytest.raises(ToolFailedError, match="another reason"), cache.scratch():
        raise ToolFailedError("another reason")
