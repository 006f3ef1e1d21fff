"""The script that installs packages with dpkg: what it changes for the while and puts back."""

from __future__ import annotations

import subprocess

import pytest

from piimage.bake import dpkg_script
from piimage.bake.lock import Layer, Package, Step

CONF, OURS = "initramfs.conf", "conf.d/zzzz-piimage"


def scripted():
    foo = Package(
        name="foo", version="1", architecture="all", sha256="a" * 64, size=1, installed=1, file="foo.deb"
    )  # fmt: skip
    layer = Layer(
        base="x",
        below="y",
        roles=(),
        wanted=("foo",),
        packages=(foo,),
        steps=(Step("unpack", ("foo",)),),
    )
    return dpkg_script.script(layer, architecture="arm64").decode()


@pytest.mark.parametrize(
    ("setting", "theirs", "asked"),
    [("dep", "", True), ("most", "", False), ("most", "MODULES=dep\n", True)],
)
def test_an_initramfs_is_for_any_board_and_the_setting_is_as_it_was(
    setting, theirs, asked, tmp_path
):
    """`dep` would take the modules of the machine that bakes (initramfs.conf(5)); bookworm's image has it."""
    text = scripted()
    head, _, tail = text.partition("run_dpkg --no-triggers --unpack")
    assert head.rstrip().splitlines().count("initramfs_for_any") == 1
    assert tail.splitlines().count("initramfs_as_it_was") == 1
    folder, run = tmp_path / "initramfs-tools", tmp_path / "run"
    (folder / "conf.d").mkdir(parents=True)
    (run / "piimage").mkdir(parents=True)
    (folder / CONF).write_text(f"MODULES={setting}\n")
    if theirs:
        (folder / "conf.d/own").write_text(theirs)
    before = (folder / "conf.d").stat().st_mtime_ns
    part = text[text.index("most=/etc") : text.index("run_dpkg() {")]
    part = part.replace("/etc/initramfs-tools", str(folder)).replace("/run/", f"{run}/")
    steps = f"initramfs_for_any; cat {folder / OURS}; initramfs_as_it_was"

    done = subprocess.run(
        ["sh", "-c", f"{part}{steps}"], capture_output=True, text=True, check=False
    )

    assert done.stdout == ("MODULES=most\n" if asked else "")
    assert not (folder / OURS).exists()
    assert (folder / CONF).read_text() == f"MODULES={setting}\n"
    assert (folder / "conf.d").stat().st_mtime_ns == before
