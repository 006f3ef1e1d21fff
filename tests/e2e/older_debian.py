"""A Debian of another release or architecture, made as the default base is and imported as an image from outside."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from piimage.bases import archive, namespace
from piimage.bases.debian import COMPONENTS, Tree, build_image
from piimage.bases.native import TREE_PATH, hook, native_tools
from piimage.bases.store import Store
from piimage.progress import Quiet
from piimage.run import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from piimage.bases.native import NativeTools
    from piimage.bases.record import Base

#: What makes a tree one that `base import` knows for a Raspberry Pi's.
SETUP = """
set -eu
cd "$1"
printf 'LABEL=RASPIROOT / ext4 rw 0 1\\nLABEL=RASPIFIRM /boot/firmware vfat rw,nofail 0 2\\n' >etc/fstab
rm -rf boot/firmware var/lib/apt/lists/* var/cache/apt/archives/*.deb etc/resolv.conf
mkdir boot/firmware
"""
#: Besides: `ifupdown` is a network stack that piimage knows.
INCLUDED = ("debian-archive-keyring", "ifupdown")
#: As debootstrap and so all images of that release have it; later ones have it by a package.
MERGED = {"bullseye": ("--setup-hook=/usr/share/mmdebstrap/hooks/merged-usr/setup00.sh",)}


@dataclass(frozen=True)
class Wanted:
    """A release, for whom, the packages over mmdebstrap's `essential`, and of which other architectures some are."""

    suite: str
    architecture: str
    packages: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()


def imported(wanted: Wanted, home: Path, piimage, cache: Path) -> Base:
    """The base `wanted.suite` in `cache`; `home` is an empty directory."""
    prefix = namespace.prefix(wanted.architecture)
    sources = archive.sources(wanted.suite, COMPONENTS)
    tools = native_tools(
        wanted.suite, sources, namespace=namespace.prefix(), cache=Store(), progress=Quiet()
    )
    image = home / "older.img"
    with _tree(wanted, home, prefix, tools) as tree:
        build_image(tree, image, progress=Quiet())
    done = piimage("base", "import", image, "--name", wanted.suite, cache=cache)
    assert done.returncode == 0, done.stderr
    image.unlink()
    return Store(cache).base(wanted.suite)


@contextmanager
def _tree(
    wanted: Wanted, home: Path, prefix: list[str], tools: NativeTools | None
) -> Iterator[Tree]:
    """The tree, installed with the native tools that the default base's is, and its removal by whoever owns it."""
    root, packages = home / "root", [*INCLUDED, *wanted.packages]
    (home / "firmware").mkdir()
    (home / "firmware/config.txt").write_text("arm_64bit=0\n")
    options = [
        "--mode=root", f"--architectures={','.join((wanted.architecture, *wanted.foreign))}",
        "--variant=essential",
        f"--include={','.join(packages)}",
        '--aptopt=APT::Install-Recommends "false"', "--dpkgopt=force-unsafe-io",
        *MERGED.get(wanted.suite, ()),
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
    # not its updates: nothing of them is wanted
    release, *_ = archive.sources(wanted.suite, COMPONENTS)
    environment = {
        "QEMU_CPU": namespace.CPUS[wanted.architecture],
        **(tools.environment() if tools else {}),
    }
    try:
        with Quiet().step("") as task:
            archive.mmdebstrap(
                [*prefix, "mmdebstrap", *options, wanted.suite, str(root), release],
                env=environment, log=home / "log", task=task,
            )  # fmt: skip
        run([*prefix, "sh", "-c", SETUP, "setup", root])
        yield Tree(root, home / "firmware", prefix)
    finally:
        run([*prefix, "rm", "-rf", root], check=False)
