"""Downloads from a server of the test's own, which breaks off and lies."""

from __future__ import annotations

import hashlib
import json
import random
import resource
from contextlib import contextmanager

import pytest
from phony_mirror import mirror

from piimage.bases import download
from piimage.bases.download import Download
from piimage.errors import FetchError, VerifyError, WriteFailedError
from piimage.web import BrokenOffError

pytestmark = pytest.mark.processes
DATA = random.Random(1).randbytes(300_000)
PATH = "/os/x.img.xz"


class Steps:
    """A `Task` that remembers."""

    def __init__(self):
        self.done, self.amount, self.notes = 0, 0, []

    def total(self, amount):
        self.amount = amount

    def advance(self, amount):
        self.done += amount

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def site():
    with mirror() as server:
        yield server


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(download, "WAITS", (0.0, 0.0, 0.0))
    monkeypatch.setenv("no_proxy", "*")


def fetch(site, tmp_path, **options):
    got = Download(f"{site.url}{PATH}", tmp_path / "part", task=Steps(), **options)
    got.run()
    return got


def whole(got, tmp_path, data=DATA):
    assert got.error is None
    assert (tmp_path / "part").read_bytes() == data
    assert got.sha256 == hashlib.sha256(data).hexdigest()
    assert got._task.done == len(data)
    assert got.growth.ended


def test_a_file(site, tmp_path):
    site.put(PATH, DATA)

    got = fetch(site, tmp_path, size=len(DATA))

    whole(got, tmp_path)
    assert got._task.amount == len(DATA)
    assert not got.spliced
    assert (tmp_path / "part").stat().st_mode & 0o077 == 0


def test_a_connection_that_breaks_goes_on(site, tmp_path):
    site.put(PATH, DATA, cuts=[100_000, 1, 0, 150_000])

    got = fetch(site, tmp_path)

    whole(got, tmp_path)
    assert site.ranges(PATH) == [
        None, "bytes=100000-", "bytes=100001-", "bytes=100001-", "bytes=250001-",
    ]  # fmt: skip
    assert got.spliced
    assert any("was cut off; trying again" in note for note in got._task.notes)


def test_a_later_run_goes_on(site, tmp_path):
    file = site.put(PATH, DATA, cuts=[120_000, 0, 0, 0, 0])

    first = fetch(site, tmp_path)
    file.cuts.clear()
    second = fetch(site, tmp_path)

    assert isinstance(first.error, BrokenOffError)
    assert "goes on from there" in first.error.hint
    whole(second, tmp_path)
    assert site.ranges(PATH)[-1] == "bytes=120000-"


def test_what_is_whole_is_not_asked_for_again(site, tmp_path):
    site.put(PATH, DATA)
    fetch(site, tmp_path)

    whole(fetch(site, tmp_path), tmp_path)

    assert len(site.seen) == 1


@pytest.mark.parametrize(
    ("lie", "asked"),
    [
        ("ignore-range", [None, "bytes=100000-"]),
        ("wrong-start", [None, "bytes=100000-", None]),
        ("no-content-range", [None, "bytes=100000-", None]),
        ("no-etag", [None, None]),
    ],
)
def test_a_server_that_lies_about_ranges_starts_over(site, tmp_path, lie, asked):
    file = site.put(PATH, DATA, cuts=[100_000], lies={lie})

    whole(fetch(site, tmp_path), tmp_path)

    assert site.ranges(PATH) == asked
    assert file.cuts == []


def test_a_total_that_changes_starts_over(site, tmp_path):
    file = site.put(PATH, DATA, cuts=[100_000, 0, 0, 0, 0])
    fetch(site, tmp_path)
    file.cuts.clear()
    file.lies.add("wrong-total")

    whole(fetch(site, tmp_path), tmp_path)

    assert site.ranges(PATH)[-2:] == ["bytes=100000-", None]


def test_another_file_on_the_server_starts_over(site, tmp_path):
    site.put(PATH, DATA, cuts=[100_000, 0, 0, 0, 0])
    fetch(site, tmp_path)
    other = DATA[::-1]
    site.put(PATH, other, etag='"two"')

    got = fetch(site, tmp_path)

    whole(got, tmp_path, other)
    assert not got.spliced


def test_an_etag_that_changes_in_the_answer_to_a_range_starts_over(site, tmp_path, monkeypatch):
    """The server does not heed If-Range, but says itself that the file is another."""
    file = site.put(PATH, DATA, cuts=[100_000, 0, 0, 0, 0])
    fetch(site, tmp_path)
    file.cuts.clear()
    record = json.loads((tmp_path / "part.json").read_text())
    (tmp_path / "part.json").write_text(json.dumps({**record, "validator": '"old"'}))
    monkeypatch.setattr(
        "phony_mirror._Handler._start", lambda self, file: 100_000 if self.headers["Range"] else 0
    )

    whole(fetch(site, tmp_path), tmp_path)

    assert site.ranges(PATH)[-2:] == ["bytes=100000-", None]


def test_a_weak_validator_does_not_join_bytes(site, tmp_path):
    site.put(PATH, DATA, etag='W/"one"', cuts=[100_000])

    whole(fetch(site, tmp_path), tmp_path)

    assert site.ranges(PATH) == [None, None]


def test_a_part_longer_than_the_file_starts_over(site, tmp_path):
    site.put(PATH, DATA)
    fetch(site, tmp_path)
    with (tmp_path / "part").open("ab") as part:
        part.write(b"more")

    whole(fetch(site, tmp_path), tmp_path)


@pytest.mark.parametrize(
    "damage", ["{", '{"url": "https://else/x", "validator": "v", "total": 9}', "[]"]
)
def test_a_part_of_unknown_origin_starts_over(site, tmp_path, damage):
    site.put(PATH, DATA)
    (tmp_path / "part").write_bytes(b"x" * 50)
    (tmp_path / "part.json").write_text(damage)

    whole(fetch(site, tmp_path), tmp_path)

    assert site.ranges(PATH) == [None]


def test_a_range_beyond_the_end_starts_over(site, tmp_path):
    file = site.put(PATH, DATA, cuts=[100_000, 0, 0, 0, 0])
    fetch(site, tmp_path)
    site.put(PATH, DATA[:50_000], etag=file.etag)

    whole(fetch(site, tmp_path), tmp_path, DATA[:50_000])


def test_a_server_that_is_busy_for_a_while(site, tmp_path):
    site.put(PATH, DATA, lies={"busy"}, cuts=[0, 0])

    whole(fetch(site, tmp_path), tmp_path)


def test_a_server_that_begins_again_and_never_gets_further_is_given_up(site, tmp_path):
    site.put(PATH, DATA, lies={"wrong-start"}, cuts=[1000, 0] * 50)

    got = fetch(site, tmp_path)

    assert isinstance(got.error, BrokenOffError)
    assert len(site.seen) < 20


def test_a_server_without_a_length(site, tmp_path):
    site.put(PATH, DATA, lies={"no-length"})

    whole(fetch(site, tmp_path), tmp_path)


def test_an_empty_file(site, tmp_path):
    site.put(PATH, b"")

    whole(fetch(site, tmp_path), tmp_path, b"")


@pytest.mark.parametrize("lies", [set(), {"no-length"}])
def test_another_size_than_the_catalog_says(site, tmp_path, lies):
    site.put(PATH, DATA, lies=lies)

    got = fetch(site, tmp_path, size=len(DATA) + 1)

    assert isinstance(got.error, VerifyError)
    assert f"has {len(DATA)} bytes, {len(DATA) + 1} are expected" in got.error.message


def test_an_encoding_that_was_not_asked_for(site, tmp_path):
    site.put(PATH, DATA, lies={"gzip"})

    got = fetch(site, tmp_path)

    assert isinstance(got.error, FetchError)
    assert "status 200, encoding gzip" in got.error.message


def test_a_file_that_is_not_there_is_asked_for_once(site, tmp_path):
    got = fetch(site, tmp_path)

    assert type(got.error) is FetchError
    assert "404 not found" in got.error.message
    assert len(site.seen) == 1


def test_nobody_listens(tmp_path):
    got = Download("http://127.0.0.1:9/x", tmp_path / "part", task=Steps())
    got.run()

    assert isinstance(got.error, BrokenOffError)
    assert "connection refused" in got.error.message
    assert "--mirror DIR" in got.error.hint


@contextmanager
def room(size):
    """Files may not grow beyond that: as a full disk, for one process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_keeps_what_came(site, tmp_path):
    site.put(PATH, DATA)

    with room(70_000):
        got = fetch(site, tmp_path)
    later = fetch(site, tmp_path)

    assert isinstance(got.error, WriteFailedError)
    assert "free some space" in got.error.hint
    whole(later, tmp_path)
    assert site.ranges(PATH)[-1] == "bytes=70000-"


def test_a_link_in_the_place_of_the_part_is_not_followed(site, tmp_path):
    site.put(PATH, DATA)
    (tmp_path / "precious").write_text("keep")
    (tmp_path / "part").symlink_to(tmp_path / "precious")

    assert isinstance(fetch(site, tmp_path).error, WriteFailedError)
    assert (tmp_path / "precious").read_text() == "keep"


def test_stopped(site, tmp_path):
    site.put(PATH, DATA)
    got = Download(f"{site.url}{PATH}", tmp_path / "part", task=Steps())
    got.stop()
    got.run()

    assert got.error is not None
    assert not got.growth.ended
