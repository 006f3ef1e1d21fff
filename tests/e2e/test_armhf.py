"""A base of another architecture and release: imported, and baked by both engines with the same result."""

from __future__ import annotations

import time
from contextlib import contextmanager

import pytest
from bakes import bake, resolve
from ext4_records import differences, records

from piimage.bases import archive, namespace
from piimage.bases.cache import Cache
from piimage.bases.debian import COMPONENTS, Tree, build_image
from piimage.bases.native import TREE_PATH, hook, native_tools
from piimage.bases.store import Store
from piimage.disk import ext4
from piimage.progress import Quiet
from piimage.run import run

#: What makes a tree one that `base import` knows for a Raspberry Pi's.
SETUP = """
set -eu
cd "$1"
printf 'LABEL=RASPIROOT / ext4 rw 0 1\\nLABEL=RASPIFIRM /boot/firmware vfat rw 0 2\\n' >etc/fstab
mkdir -p boot/firmware
rm -rf var/lib/apt/lists/* var/cache/apt/archives/*.deb etc/resolv.conf
"""
#: Not that of the default base: what is baked natively depends on the release too.
SUITE = "bookworm"
#: `ifupdown` is a network stack that piimage knows; `init-system-helpers` and scripts of it are run.
INCLUDED = ("debian-archive-keyring", "ifupdown")


@pytest.fixture(scope="module")
def base(tmp_path_factory, piimage):
    """A small, older Debian for armhf, made as the default base is and imported as an image from outside."""
    home = tmp_path_factory.mktemp("armhf")
    prefix = namespace.prefix("armhf")
    tools = native_tools(
        SUITE, archive.sources(SUITE, COMPONENTS), namespace=namespace.prefix(), cache=Store(), progress=Quiet()
    )  # fmt: skip
    with _tree(home, prefix, tools) as tree:
        build_image(tree, home / "armhf.img", progress=Quiet())
    done = piimage("base", "import", home / "armhf.img", "--name", "armhf", cache=home / "cache")
    assert done.returncode == 0
    (home / "armhf.img").unlink()
    return Store(home / "cache").base("armhf")


@contextmanager
def _tree(home, prefix, tools):
    """The tree, installed with the native tools that the default base's is, and its removal by whoever owns it."""
    root = home / "root"
    (home / "firmware").mkdir()
    (home / "firmware/config.txt").write_text("arm_64bit=0\n")
    options = [
        "--mode=root", "--architectures=armhf", "--variant=essential", f"--include={','.join(INCLUDED)}",
        '--aptopt=APT::Install-Recommends "false"', "--dpkgopt=force-unsafe-io",
        *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")),
    ]  # fmt: skip
    if tools:
        enter, swap, leave = (f'sh {hook(name)} "$1"' for name in ("enter", "swap", "leave"))
        options += [
            f"--extract-hook={enter}",
            f"--essential-hook={swap}",
            f"--customize-hook={leave}",
        ]
        options += [f'--aptopt=DPkg::Path "{TREE_PATH}"']
    release, *_ = archive.sources(SUITE, "main")  # not its updates: nothing of them is wanted
    try:
        with Quiet().step("") as task:
            archive.mmdebstrap(
                [*prefix, "mmdebstrap", *options, SUITE, str(root), release],
                env={"QEMU_CPU": namespace.CPUS["armhf"], **(tools.environment() if tools else {})},
                log=home / "log", task=task,
            )  # fmt: skip
        run([*prefix, "sh", "-c", SETUP, "setup", root])
        yield Tree(root, home / "firmware", prefix)
    finally:
        run([*prefix, "rm", "-rf", root], check=False)


def test_the_base_is_known_for_what_it_is(base):
    assert base.facts.architecture == "armhf"
    assert not base.trusted


def test_both_engines_bake_it_with_the_same_result(base, tmp_path):
    began = time.time()
    layer = resolve(base, ["tree", "fping"])
    assert {p.name: p.architecture for p in layer.packages}.items() >= {
        "tree": "armhf", "fping": "armhf",
    }.items()  # fmt: skip
    found = {}
    for engine in ("chroot", "vm"):
        made = bake(base, layer, engine, Cache(tmp_path / engine))
        assert made.tools["engine"] == engine
        new = {p.name: p.version for p in layer.packages}
        assert made.facts.packages == {**base.facts.packages, **new}
        root = made.facts.table.partition(made.facts.mounts["/"]).start
        found[engine] = records(made.path, root)
        program = ext4.read_files(made.path, root, ["/usr/bin/tree"])["/usr/bin/tree"]
        assert program[:5] == b"\x7fELF\1"
        assert program[18:20] == b"\x28\0"  # e_machine of elf(5): ARM
    assert differences(found["vm"], found["chroot"], began) == {}
