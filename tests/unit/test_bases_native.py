"""Native tools in a foreign tree: fetched once, put in, swapped, and taken out without a trace."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from phony import ARM64

from piimage.bases import native
from piimage.bases.cache import Cache
from piimage.bases.native import hook, native_tools
from piimage.errors import ToolFailedError
from piimage.progress import Quiet

if TYPE_CHECKING:
    from pathlib import Path

X86 = ARM64[:18] + b"\x3e\0" + ARM64[20:]
TRIPLET, LOADER = "x86_64-linux-gnu", "ld-linux-x86-64.so.2"
#: Package -> programs of the guest.
GUEST = {
    "bash": ["usr/bin/bash"],
    "coreutils": ["usr/bin/cat", "usr/bin/uname", "usr/sbin/chroot"],
    "dash": ["usr/bin/dash"],
    "dpkg": ["usr/bin/dpkg", "usr/bin/dpkg-deb"],
    "dracut-install": ["usr/lib/dracut/dracut-install"],
    "kmod": ["usr/bin/kmod"],
    "perl-base": ["usr/bin/perl"],
    "sed": ["usr/bin/sed"],
}


@pytest.fixture
def fake(tmp_path, monkeypatch):
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")

    def program(name, script):
        (directory / name).write_text(f"#!/bin/sh\n{script}\n")
        (directory / name).chmod(0o755)

    return program


@dataclass(frozen=True)
class Fetched:
    """Asks for the tools; `log` has what mmdebstrap was asked."""

    log: Path
    cache: Cache

    def __call__(self, suite="trixie", sources=("deb http://deb.test/ trixie main",)):
        return native_tools(suite, sources, namespace=(), cache=self.cache, progress=Quiet())


@pytest.fixture
def fetched(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(native.platform, "machine", lambda: "x86_64")
    log = tmp_path / "log"
    fake(
        "mmdebstrap",
        f'echo "$@" >>{log}; for last; do case $last in /*) mkdir "$last" && touch "$last/made" ;; esac; done',
    )
    return Fetched(log, Cache(tmp_path / "cache"))


def test_fetched_once(fetched):
    first, second = fetched(), fetched()

    assert first == second
    assert (first.directory / "made").exists()
    assert len(fetched.log.read_text().splitlines()) == 1
    assert first.environment() == {
        "NATIVE_TOOLS": str(first.directory),
        "NATIVE_TRIPLET": TRIPLET,
        "NATIVE_LOADER": LOADER,
    }


def test_of_another_release_or_archive_they_are_others(fetched):
    places = {
        fetched().directory,
        fetched(suite="forky").directory,
        fetched(sources=("deb http://other.test/ trixie main",)).directory,
    }

    assert len(places) == 3


def test_a_tool_that_a_release_lacks_is_asked_for_in_a_way_that_may_find_nothing(fetched):
    fetched(suite="bookworm")

    words = fetched.log.read_text().split()
    asked = [word.removeprefix("--include=") for word in words if word.startswith("--include=")]
    assert "dracut-install" not in asked[0].split(",")
    assert asked[1:] == ["?exact-name(dracut-install)"]


def test_what_older_releases_have_outside_usr_gets_into_it(tmp_path):
    subprocess.run(["sh", "-c", native._MERGED, "hook", tmp_path], check=True)
    write(tmp_path / "bin/sed", X86)
    write(tmp_path / "lib" / TRIPLET / LOADER, X86)

    assert (tmp_path / "usr/bin/sed").exists()
    assert (tmp_path / "usr/lib" / TRIPLET / LOADER).exists()


def test_tools_without_dracut_install(tools, tree, run_hook):
    shutil.rmtree(tools / "usr/lib/dracut")

    run_hook("enter")
    run_hook("swap")

    assert {"cat", "sed"} <= {p.name for p in (tree / ".native/tools").iterdir()}
    assert not (tree / ".native/tools/*").is_symlink()
    assert (tree / "usr/lib/dracut/dracut-install").read_bytes().startswith(ARM64)


def test_a_host_that_needs_none(fetched, monkeypatch):
    monkeypatch.setattr(native.platform, "machine", lambda: "aarch64")

    assert fetched() is None
    assert not fetched.log.exists()


def test_a_failure_is_not_kept(fetched, fake, tmp_path):
    fake(
        "mmdebstrap",
        'for last; do case $last in /*) mkdir "$last" ;; esac; done; echo "E: no" >&2; exit 2',
    )

    with pytest.raises(ToolFailedError, match="E: no"):
        fetched()

    assert list((tmp_path / "cache/native").iterdir()) == []
    assert list((tmp_path / "cache/scratch").iterdir()) == []


@pytest.fixture
def tools(tmp_path):
    """Native tools as a package archive gives them."""
    root = tmp_path / "native"
    for name in (
        "bash",
        "cat",
        "dash",
        "dpkg",
        "dpkg-deb",
        "kmod",
        "perl",
        "python3.13",
        "sed",
        "uname",
    ):
        write(root / "usr/bin" / name, X86)
    write(root / "usr/bin/script", b"#!/bin/sh\n")
    write(root / "usr/sbin/chroot", X86)
    write(root / "usr/lib/dracut/dracut-install", X86)
    write(root / "usr/lib" / TRIPLET / LOADER, X86)
    return root


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o755)


@pytest.fixture
def tree(tmp_path):
    """A foreign tree with a merged /usr."""
    root = tmp_path / "root"
    for package, places in GUEST.items():
        for place in places:
            write(root / place, ARM64 + place.encode())
        listed = "".join(f"/{place}\n" for place in places)
        write(root / "var/lib/dpkg/info" / f"{package}.list", f"/.\n/usr\n{listed}".encode())
    write(root / "usr/lib/python3/dist-packages/mine/a.py", b"x = 1\n")
    write(root / "usr/lib/python3.13/os.py", b"x = 1\n")
    write(
        root / "var/lib/dpkg/info/python3-mine.list",
        b"/usr/lib/python3/dist-packages/mine/a.py\n/usr/lib/python3.13/os.py\n/usr/share/doc/x\n",
    )
    (root / "usr/bin/sh").symlink_to("dash")
    (root / "bin").symlink_to("usr/bin")
    return root


@pytest.fixture
def run_hook(tools, tree, fake):
    """Runs hooks on the tree; `chroot` runs python here, and notes the rest."""
    # env(1) looks for the program on the PATH that it sets, where there is no fake.
    fake(
        "env",
        f'while case $1 in *=*) ;; *) break ;; esac; do export "$1"; shift; done; exec {tree.parent}/bin/"$@"',
    )
    fake(
        "chroot",
        f'echo "$@" >>{tree.parent}/chroot.log; case $2 in *python*) sed "s#^#$1#" >{tree.parent}/compiled ;; esac',
    )

    def run(name):
        env = {
            **os.environ,
            "NATIVE_TOOLS": str(tools),
            "NATIVE_TRIPLET": TRIPLET,
            "NATIVE_LOADER": LOADER,
        }
        done = subprocess.run(
            ["sh", hook(name), tree], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    return run


def listing(root):
    return {
        str(p.relative_to(root)): (
            str(p.readlink()) if p.is_symlink() else p.read_bytes() if p.is_file() else None
        )
        for p in sorted(root.rglob("*"))
    }


def test_no_trace_is_left(tree, run_hook):
    before = listing(tree)

    for name in ("enter", "swap", "swap", "initramfs", "leave"):
        run_hook(name)

    assert listing(tree) == before


def test_what_is_swapped(tree, run_hook):
    run_hook("enter")
    run_hook("swap")

    swapped = {
        p
        for p, data in listing(tree).items()
        if isinstance(data, str) and "/.native/" in data and not p.startswith(".native")
    }
    assert swapped - {f"usr/lib/{TRIPLET}", f"usr/lib64/{LOADER}"} == {
        "usr/bin/bash", "usr/bin/cat", "usr/bin/dash", "usr/bin/perl", "usr/bin/sed",
        "usr/lib/dracut/dracut-install",
    }  # fmt: skip
    for kept in ("usr/bin/uname", "usr/bin/dpkg", "usr/bin/kmod", "usr/sbin/chroot"):
        assert (tree / kept).read_bytes() == ARM64 + kept.encode()
    assert (tree / "usr/bin/cat.guest").read_bytes() == ARM64 + b"usr/bin/cat"


def test_what_comes_first_on_path(tree, run_hook):
    run_hook("enter")

    names = {p.name for p in (tree / ".native/tools").iterdir()}
    assert {"cat", "sed", "dpkg-deb", "py3compile", "dracut-install"} <= names
    assert not names & {"uname", "dpkg", "python3.13", "script", "chroot", "bash", "dash", "perl"}


def test_native_libraries_are_hidden_from_the_initramfs(tree, run_hook, fake):
    seen = tree.parent / "seen"
    fake(
        "chroot",
        f'ls "$1/usr/lib" >{seen}; printf "%s\\n" "$LD_LIBRARY_PATH" "$PATH" "$*" >>{seen}',
    )
    run_hook("enter")
    run_hook("swap")

    run_hook("initramfs")

    lines = seen.read_text().splitlines()
    assert TRIPLET not in lines
    assert f"/.native/usr/lib/{TRIPLET}" in lines
    assert "/usr/sbin:/usr/bin:/sbin:/bin" in lines
    assert lines[-1].endswith("update-initramfs -c -k all")
    assert (tree / "usr/lib" / TRIPLET).is_symlink()


def test_byte_code_that_was_asked_for(tree, run_hook):
    run_hook("enter")
    (tree / ".native/py3compile.log").write_text("-p python3-mine:arm64\n-p python3-absent\n")

    run_hook("leave")

    compiled = (tree.parent / "compiled").read_text().split()
    assert f"{tree}/usr/lib/python3/dist-packages/mine/a.py" in compiled
    assert sys.version_info >= (3, 11)
