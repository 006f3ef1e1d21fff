from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from piimage.bases.publishers import read_all
from piimage.errors import ConfigError

GOOD = """\
publisher: Example
keys: [0123456789ABCDEF0123456789ABCDEF01234567]
keyrings: [example.gpg]
key_url: https://example.org/key
sums: SHA256SUMS
signature: SHA256SUMS.gpg
images:
  example-1:
    description: Example 1
    url: https://example.org/1/a%2Bb.img.xz
    sha256: 00000000000000000000000000000000000000000000000000000000000000aa
    size: 7
  example-2:
    url: https://example.org/2/x.img.xz
    sums: ""
    signature: "{file}.sig"
"""

SHIPPED = read_all()[1]


def profile(directory, text, name="example"):
    path = directory / "profiles" / "images" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_what_ships_names_all_that_the_recipe_starts_from():
    images = SHIPPED

    assert {name.split("-")[0] for name in images} == {"debian", "fedora", "raspios", "ubuntu"}
    for release in ("trixie", "bookworm", "bullseye"):
        for kind in ("arm64", "armhf", "arm64-lite", "armhf-lite"):
            assert f"raspios-{release}-{kind}" in images
    assert {f"fedora-{n}-{kind}" for n in (41, 42, 43, 44) for kind in ("minimal", "server")} <= {
        *images
    }
    assert {f"ubuntu-{n}-arm64" for n in ("22.04", "24.04", "25.10", "26.04")} <= {*images}


@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships_comes_over_https_and_is_signed_or_asks_for_a_digest(name):
    image = SHIPPED[name]

    for address in {image.url, image.sums, image.signature} - {"", "inline"}:
        assert urlsplit(address).scheme == "https"
        assert urlsplit(address).netloc == urlsplit(image.url).netloc
    assert image.description
    assert bool(image.signature) == (image.publisher.name != "debian-raspi")
    assert image.file.endswith((".img.xz", ".raw.xz"))


def test_addresses_beside_the_image(tmp_path):
    profile(tmp_path, GOOD)

    publishers, images = read_all(tmp_path)

    one, two = images["example-1"], images["example-2"]
    assert one.sums == "https://example.org/1/SHA256SUMS"
    assert one.signature == "https://example.org/1/SHA256SUMS.gpg"
    assert one.file == "a+b.img.xz"
    assert (one.pinned, two.pinned) == (True, False)
    assert (two.sums, two.signature) == ("", "https://example.org/2/x.img.xz.sig")
    assert publishers["example"].keyrings == (tmp_path / "profiles" / "images" / "example.gpg",)


def test_the_name_in_the_address_of_a_signature_stays_as_it_is(tmp_path):
    profile(tmp_path, GOOD.replace("SHA256SUMS.gpg", '"{file}.sig"'))

    assert read_all(tmp_path)[1]["example-1"].signature == "https://example.org/1/a%2Bb.img.xz.sig"


def test_a_file_beside_cluster_yaml_shadows_the_one_that_ships(tmp_path):
    profile(tmp_path, GOOD, "ubuntu")

    assert "ubuntu-24.04-arm64" not in read_all(tmp_path)[1]
    assert "example-1" in read_all(tmp_path)[1]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("publisher: Example\n", "", "`publisher` is missing"),
        ("01234567]", "0123456]", "`keys` must be a list of fingerprints"),
        ("keys: [0123456789ABCDEF0123456789ABCDEF01234567]\n", "", "is of no use without `keys`"),
        ("[example.gpg]", "example.gpg", "`keyrings` must be a list of files"),
        ("https://example.org/key", "file:///key", "`key_url` must be an address"),
        ("    url: https://example.org/2/x.img.xz\n", "", "`url` is missing"),
        ("size: 7", "size: -7", "`size` must be a number of bytes"),
        ("size: 7", "size: true", "`size` must be a number of bytes"),
        ("00aa", "00AA", "`sha256` must be 64 hex digits"),
        ("size: 7", "sizes: 7", "`sizes` is not a field here"),
        ("example-2:", "Example 2:", "`Example 2` is not a name for a base"),
        ('"{file}.sig"', "inline", "`signature: inline` is for `sums`"),
        ("example-1:", "example-2:", "`example-2` is given twice"),
    ],
)
def test_a_wrong_profile_says_where(tmp_path, old, new, message):
    assert old in GOOD
    profile(tmp_path, GOOD.replace(old, new))

    with pytest.raises(ConfigError) as caught:
        read_all(tmp_path)

    found = [found for found in caught.value.diagnostics if message in found.message]
    assert found, caught.value.diagnostics
    assert found[0].file.endswith("example.yaml")


def test_all_mistakes_at_once(tmp_path):
    profile(tmp_path, GOOD.replace("size: 7", "size: x").replace("00aa", "zz"))

    with pytest.raises(ConfigError) as caught:
        read_all(tmp_path)

    assert len(caught.value.diagnostics) == 2
