"""`piimage base pull` and `base trust` as a user runs them, against a server of the test's own."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys

import pytest
from phony_keys import signers
from phony_mirror import mirror
from typer.testing import CliRunner

from piimage.cli import completion
from piimage.cli.base import app
from piimage.errors import PiimageError

pytestmark = pytest.mark.processes
FILE = "x.img.gz"


@pytest.fixture(scope="module")
def alice():
    with signers("alice") as (one,):
        yield one


@pytest.fixture
def site():
    with mirror() as server:
        yield server


@pytest.fixture
def packed(small):
    return subprocess.run(["gzip", "-1c", str(small)], stdout=subprocess.PIPE, check=True).stdout


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch, site, alice, packed):
    """A cluster's directory with a profile of its own, and a server that has its image."""
    for name, value in {
        "PIIMAGE_CACHE": str(tmp_path / "cache"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "NO_COLOR": "1",
        "no_proxy": "*",
    }.items():
        monkeypatch.setenv(name, value)
    profile = tmp_path / "profiles" / "images" / "company.yaml"
    profile.parent.mkdir(parents=True)
    profile.write_text(
        f"publisher: Company\nkeys: [{alice.fingerprint}]\nsignature: '{{file}}.sig'\nimages:\n"
        f"  company-1: {{description: One, url: {site.url}/{FILE}, size: {len(packed)}}}\n"
    )
    site.put(f"/{FILE}", packed)
    site.put(f"/{FILE}.sig", alice.detached(packed))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*argv):
    result = CliRunner().invoke(app, [str(word) for word in argv])
    if isinstance(result.exception, PiimageError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def trusted(alice, place):
    (place / "key.asc").write_bytes(alice.public(armor=True))
    return run("trust", "key.asc")


def test_a_key_then_an_image(alice, place, packed):
    said = trusted(alice, place)
    result = run("pull", "company-1", "--json")

    assert said.stdout.startswith("Company: ")
    assert "(alice <alice@example.org>)" in said.stdout
    found = json.loads(result.stdout)
    assert found["name"] == "company-1"
    assert found["origin"]["sha256"] == hashlib.sha256(packed).hexdigest()
    assert f"downloading {FILE}" in result.stderr
    assert "was signed by Company on" in result.stderr
    rows = {row["name"]: row for row in json.loads(run("list", "--json").stdout)}
    assert (rows["company-1"]["present"], rows["company-1"]["how"]) == (True, "imported")


def test_without_the_key(place):
    with pytest.raises(PiimageError, match="with a key that is not here"):
        run("pull", "company-1")


def test_a_name_that_is_not_published():
    with pytest.raises(
        PiimageError, match="`debian-13` is not an image that can be pulled"
    ) as caught:
        run("pull", "debian-13")
    assert caught.value.hint == "run `piimage base make debian-13`"
    with pytest.raises(PiimageError, match="is not an image") as caught:
        run("pull", "raspios-trixie-arm64-lit")
    assert "`raspios-trixie-arm64-lite`" in caught.value.hint


def test_tab_offers_names_of_images(place):
    assert completion.images("company") == ["company-1"]
    assert "debian-13" not in completion.images("debian")
    (place / "profiles" / "images" / "company.yaml").write_text("publisher: 7\n")
    assert completion.images("company") == []


def test_a_mirror_in_the_environment(alice, place, site, packed, monkeypatch):
    trusted(alice, place)
    (place / "files").mkdir()
    (place / "files" / FILE).write_bytes(packed)
    (place / "files" / f"{FILE}.sig").write_bytes(alice.detached(packed))
    monkeypatch.setenv("PIIMAGE_MIRROR", "files")

    run("pull", "company-1")

    assert site.seen == []


def test_a_file(alice, place, site, packed):
    trusted(alice, place)
    (place / "mine").write_bytes(packed)

    run("pull", "company-1", "--from", "mine")

    assert site.ranges(f"/{FILE}") == []


def test_trust_by_fingerprint_from_a_server(alice, site):
    site.put(f"/pks/lookup?op=get&options=mr&search=0x{alice.fingerprint}", alice.public())

    result = run("trust", alice.fingerprint.lower(), "--keyserver", site.url, "--json")

    (row,) = json.loads(result.stdout)
    assert (row["fingerprint"], row["publisher"]) == (alice.fingerprint, "company")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["absent.asc"], "cannot read"),
        (["key.asc", "--fingerprint", "12"], "is not a fingerprint"),
        (["A" * 40, "--fingerprint", "B" * 40], "of different keys"),
        (["key.asc", "--fingerprint", "B" * 40], "that is another key"),
        (["key.asc", "--publisher", "ubuntu"], "no profile names a key"),
        (["key.asc", "--publisher", "nobody"], "`nobody` is not a publisher"),
    ],
)
def test_what_is_not_trusted(alice, place, words, message):
    (place / "key.asc").write_bytes(alice.public(armor=True))

    with pytest.raises(PiimageError, match=message):
        run("trust", *words)
    assert not (place / "config").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_pull_that_is_ended_goes_on_the_next_time(alice, place, site, packed, number):
    trusted(alice, place)
    half = len(packed) // 2
    site.files[f"/{FILE}"].cuts.append(half)
    site.files[f"/{FILE}"].lies.add("hang")
    argv = [sys.executable, "-m", "piimage", "base", "pull", "company-1"]
    with subprocess.Popen(
        argv, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ
    ) as child:
        assert site.hung.wait(60)
        part = place / "cache" / "downloads" / "company-1" / ".part"
        while part.stat().st_size < half:
            assert child.poll() is None
        child.send_signal(number)
        _, said = child.communicate(timeout=60)

    assert child.returncode == (130 if number == signal.SIGINT else -number)
    assert b"Traceback" not in said
    assert sorted(path.name for path in part.parent.iterdir()) == [
        ".part", ".part.json", f".{FILE}.sig",
    ]  # fmt: skip
    run("pull", "company-1")
    assert site.ranges(f"/{FILE}") == [None, f"bytes={half}-"]
    assert not part.parent.exists()
