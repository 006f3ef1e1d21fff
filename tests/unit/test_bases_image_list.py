from __future__ import annotations

import json

import pytest
from phony_mirror import mirror

from piimage.bases import image_list
from piimage.bases.catalog import entries
from piimage.bases.publishers import Publisher
from piimage.bases.store import Store
from piimage.errors import FetchError
from piimage.progress import Quiet

LITE = "a" * 64


def items(host, inner=()):
    """A made-up list in the shape of Raspberry Pi's, format 4."""
    lite = {
        "name": "Example OS Lite (64-bit)",
        "description": "A port with no desktop",
        "url": f"{host}/os/images/2026-06-18-example-trixie-arm64-lite.img.xz",
        "icon": f"{host}/icon.png",
        "extract_size": 2977955840,
        "extract_sha256": LITE.upper(),
        "image_download_size": 524875608,
        "image_download_sha256": "",
        "release_date": "2026-06-18",
        "init_format": "cloudinit-rpi",
        "devices": ["pi5-64bit", "pi4-64bit"],
    }
    full = {**lite, "url": f"{host}/os/2026-06-18-Example_Full.zip", "image_download_sha256": LITE}
    return [
        lite,
        {"name": "Other", "subitems": [{"name": "Deeper", "subitems": [full]}, *inner]},
        {"name": "Somebody else's", "url": "https://elsewhere.example/other.img.xz"},
        {"name": "Erase", "url": "internal://format"},
        {"name": "Empty"},
        "nonsense",
    ]


def publisher(url):
    return Publisher(
        name="example", title="Example", list_url=url, signature="{file}.sig", keys=("A",)
    )


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PIIMAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    return Store()


def test_images_of_the_publishers_own_host():
    found = image_list.parse(publisher("https://example.org/list"), items("https://example.org"))

    assert list(found) == ["2026-06-18-example-trixie-arm64-lite", "2026-06-18-example_full"]
    lite, full = found.values()
    assert lite.description == "Example OS Lite (64-bit), 2026-06-18, cloudinit-rpi"
    assert (lite.sha256, lite.size) == (None, 524875608)
    assert (lite.image_sha256, lite.image_size) == (LITE, 2977955840)
    assert lite.signature == f"{lite.url}.sig"
    assert (full.sha256, full.pinned) == (LITE, False)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("url", 7),
        ("url", "https://example.org/a b.img.xz"),
        ("url", "https://example.org:1/x.img.xz"),
        ("url", ""),
    ],
)
def test_addresses_that_cannot_be_are_passed_over(field, value):
    wrong = {**items("https://example.org")[0], field: value}

    assert image_list.parse(publisher("https://example.org/list"), [wrong]) == {}


def test_sizes_and_digests_that_cannot_be_are_left_out():
    wrong = {
        **items("https://example.org")[0],
        "extract_size": True, "image_download_size": "1", "extract_sha256": "x", "name": None,
    }  # fmt: skip
    (image,) = image_list.parse(publisher("https://example.org/list"), [wrong]).values()

    assert (image.size, image.image_size, image.image_sha256) == (None, None, None)


def test_a_list_that_holds_itself_ends():
    nested: list = []
    for _ in range(2000):
        nested = [{"subitems": nested}]

    assert image_list.parse(publisher("https://example.org/list"), nested) == {}


@pytest.mark.processes
def test_a_refreshed_list_is_in_the_catalog(cache, tmp_path, monkeypatch):
    with mirror() as site:
        inner = {**items(site.url)[0], "url": f"{site.url}/inner.img.xz"}
        outer = items(site.url, [{"name": "More", "subitems_url": f"{site.url}/more"}])
        site.put("/list", json.dumps({"imager": {}, "os_list": outer}).encode())
        site.put("/more", json.dumps({"os_list": [inner]}).encode())
        profile = tmp_path / "profiles" / "images" / "example.yaml"
        profile.parent.mkdir(parents=True)
        profile.write_text(f"publisher: Example\nlist: {site.url}/list\n")

        assert image_list.refresh([publisher(f"{site.url}/list")], cache, Quiet()) == 3

    found = entries(tmp_path)
    assert found["inner"].published.url.endswith("/inner.img.xz")
    assert found["2026-06-18-example-trixie-arm64-lite"].obtain == "pull"
    assert "inner" not in entries()


@pytest.mark.processes
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "there is no list of images"),
        (b"<html>", "is no list of images"),
        (b'{"os_list": 1}', "it has no `os_list`"),
        (b'{"os_list": []}', "names no image of its own"),
        (b"[]", "it has no `os_list`"),
    ],
)
def test_what_is_no_list_changes_nothing(cache, answer, words):
    place = cache.directory("lists") / "example.json"
    place.write_text("before")
    with mirror() as site:
        if answer is not None:
            site.put("/list", answer)
        with pytest.raises(FetchError, match=words):
            image_list.refresh([publisher(f"{site.url}/list")], cache, Quiet())

    assert place.read_text() == "before"


def test_a_damaged_list_counts_as_none(cache):
    (cache.directory("lists") / "example.json").write_text("{")

    assert image_list.kept([publisher("https://example.org/list")]) == {}
