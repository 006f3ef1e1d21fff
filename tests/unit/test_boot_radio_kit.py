"""The kit disk: what is asked of apt, what the image holds, what is remembered."""

from __future__ import annotations

import os
import subprocess

import pytest
from test_bake_kernel import make_package

from piimage.bases.cache import Cache
from piimage.boot import radio_kit
from piimage.errors import MissingToolError, ToolFailedError
from piimage.progress import Quiet

FILES = {
    "hostapd": {"./usr/sbin/hostapd": b"AP", "./usr/share/doc/hostapd/README": b"long", "./etc/x": b"x"},
    "libc6": {"./usr/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1": b"loader"},
}  # fmt: skip


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """An apt that gives two packages, and a log of how it was called."""
    tools, packages = tmp_path / "bin", tmp_path / "packages"
    tools.mkdir()
    packages.mkdir()
    for name, files in FILES.items():
        make_package(packages / f"{name}_1_arm64.deb", name, files)
    programs = {
        "apt-get": f"""
            case "$*" in
            indextargets*) echo 'Debian|Debian|http://deb.test/debian/' ;;
            *--download-only*)
                [ -e {tmp_path}/down ] && {{ echo 'E: no such host' >&2; exit 100; }}
                cp {packages}/*.deb "$(dirname "$APT_CONFIG")/var/cache/apt/archives/" ;;
            esac""",
        "apt-config": "true",
    }
    for name, body in programs.items():
        (tools / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/calls\n{body}\n')
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    return tmp_path


def content(image, path):
    words = ["debugfs", "-R", f"cat {path}", image]
    return subprocess.run(words, capture_output=True, check=True).stdout


def test_it_holds_the_programs_and_what_starts_them(archive, tmp_path):
    image = radio_kit.ensure(Cache(tmp_path / "cache"), Quiet())

    assert content(image, "/usr/sbin/hostapd") == b"AP"
    assert content(image, "/usr/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1") == b"loader"
    assert content(image, "/start").startswith(b"#!/bin/sh\n")
    assert content(image, "/usr/share/doc/hostapd/README") == b""
    assert content(image, "/etc/x") == b""
    assert (
        subprocess.run(["e2fsck", "-fn", image], capture_output=True, check=False).returncode == 0
    )
    assert "install hostapd iw busybox-static" in (archive / "calls").read_text()


def test_it_is_fetched_once_and_anew_when_what_starts_it_changes(archive, tmp_path, monkeypatch):
    cache = Cache(tmp_path / "cache")
    first = radio_kit.ensure(cache, Quiet())
    fetched = (archive / "calls").read_text().count("--download-only")
    assert radio_kit.ensure(cache, Quiet()) == first
    assert (archive / "calls").read_text().count("--download-only") == fetched == 1

    monkeypatch.setattr(radio_kit, "START", "inside_radio.py")
    assert radio_kit.ensure(cache, Quiet()) != first


def test_an_archive_that_is_down_leaves_nothing(archive, tmp_path):
    cache = Cache(tmp_path / "cache")
    (archive / "down").touch()
    with pytest.raises(ToolFailedError, match="no such host"):
        radio_kit.ensure(cache, Quiet())
    assert not list((tmp_path / "cache").rglob("*.img"))

    (archive / "down").unlink()
    assert radio_kit.ensure(cache, Quiet()).is_file()


def test_a_machine_without_a_debian_archive_is_told(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(radio_kit.archive, "sources", lambda *_: [])
    with pytest.raises(MissingToolError, match="knows no Debian archive"):
        radio_kit.ensure(Cache(tmp_path / "cache"), Quiet())
