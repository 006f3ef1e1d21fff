from __future__ import annotations

import pytest

from piimage.bases.catalog import cure, entries
from piimage.errors import ConfigError

GOOD = "description: Mine\nobtain: make\nsuite: forky\narchitecture: arm64\n"


def profile(directory, name, text):
    path = directory / "profiles" / "distro" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_what_ships():
    entry = entries()["debian-13"]

    assert (entry.obtain, entry.suite, entry.architecture) == ("make", "trixie", "arm64")
    assert entry.description


def test_a_file_beside_cluster_yaml_adds_and_shadows(tmp_path):
    profile(tmp_path, "debian-14", GOOD)
    profile(tmp_path, "debian-13", GOOD)

    found = entries(tmp_path)

    assert found["debian-14"].suite == found["debian-13"].suite == "forky"
    assert list(found) == sorted(found)


def test_a_distro_that_cannot_be_had_by_name_is_no_entry(tmp_path):
    profile(tmp_path, "other", "description: packages only\n")

    assert "other" not in entries(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("obtain: make", "obtain: steal", "`steal` is not a way"),
        ("suite: forky", "suite: 13", "`suite` must be text"),
        ("suite: forky\n", "", "`suite` must be text"),
        ("architecture: arm64", "architecture: [arm64]", "`architecture` must be text"),
    ],
)
def test_a_wrong_profile_says_where(tmp_path, old, new, message):
    profile(tmp_path, "mine", GOOD.replace(old, new))

    with pytest.raises(ConfigError) as caught:
        entries(tmp_path)

    (found,) = caught.value.diagnostics
    assert message in found.message
    assert found.file.endswith("mine.yaml")
    assert found.line is not None


def test_cures():
    assert cure("debian-13", []) == "run `piimage base make debian-13`"
    assert cure("ubuntu-24.04-arm64", []) == "run `piimage base pull ubuntu-24.04-arm64`"
    assert "did you mean `raspios`" in cure("rapsios", ["raspios"])
    assert "--name zzz" in cure("zzz", [])
