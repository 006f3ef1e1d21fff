"""Our own kernel: what is asked of apt and depmod, what is taken out of packages, what is remembered."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile

import pytest

from piimage.bake import kernel
from piimage.bases.cache import Cache
from piimage.errors import MissingToolError, ToolFailedError
from piimage.progress import Quiet

VERSION = "6.12.9+deb13-arm64"
KERNEL = f"linux-image-{VERSION}"
FILES = {
    KERNEL: {
        f"./boot/vmlinuz-{VERSION}": b"Image",
        f"./boot/config-{VERSION}": b"CONFIG_X=y",
        f"./usr/lib/modules/{VERSION}/kernel/fs/ext4/ext4.ko.xz": b"module",
        f"./usr/lib/modules/{VERSION}/modules.builtin": b"kernel/x.ko\n",
        f"./usr/lib/linux-image-{VERSION}/broadcom/bcm2837-rpi-3-b.dtb": b"tree",
    },
    "busybox-static": {"./usr/bin/busybox": b"\x7fELF", "./usr/share/man/man1/busybox.1.gz": b"x"},
}


def make_package(place, name, files):
    """A .deb as dpkg-deb makes it, without needing its tree on the disk."""

    def tar(members):
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as archive:
            for path, content in members.items():
                info = tarfile.TarInfo(path)
                if isinstance(content, str):
                    info.type, info.linkname = tarfile.SYMTYPE, content
                    archive.addfile(info)
                else:
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
        return data.getvalue()

    control = f"Package: {name}\nVersion: 1-2\nArchitecture: arm64\nMaintainer: x\nDescription: x\n"
    members = {
        "debian-binary": b"2.0\n",
        "control.tar": tar({"./control": control.encode()}),
        "data.tar": tar(files),
    }
    with place.open("wb") as deb:
        deb.write(b"!<arch>\n")
        for member, data in members.items():
            deb.write(f"{member:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode())
            deb.write(data + b"\n" * (len(data) % 2))


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """An apt that gives two packages, a depmod that writes an index, and a log of how they were called."""
    directory, packages = tmp_path / "bin", tmp_path / "packages"
    directory.mkdir()
    packages.mkdir()
    for name, files in FILES.items():
        make_package(packages / f"{name}_1_arm64.deb", name, files)
    programs = {
        "apt-get": f"""
            case "$*" in
            indextargets*) echo 'Debian|Debian|http://deb.test/debian/' ;;
            *update) cp "$APT_CONFIG" {tmp_path}/conf; cp -r "$(dirname "$APT_CONFIG")/etc" {tmp_path}/etc ;;
            *download*) for p in "$@"; do cp "{packages}/${{p}}"_1_arm64.deb . 2>/dev/null; done; true ;;
            esac""",
        "apt-cache": f"echo 'Package: linux-image-arm64'; echo 'Depends: {KERNEL} (= 1-2)'",
        "apt-config": """
            echo 'Acquire::http::Proxy "http://proxy.test:3128/";'
            echo 'APT::Update::Post-Invoke:: "touch /tmp/hooked";'""",
        "depmod": """
            for base in "$2/lib/modules/$3" "$2/usr/lib/modules/$3"; do
                [ -d "$base" ] && echo 'kernel/fs/ext4/ext4.ko.xz:' >"$base/modules.dep"
            done""",
    }
    for name, body in programs.items():
        script = f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/calls\n{body}\n'
        (directory / name).write_text(script)
        (directory / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    return tmp_path


def calls(archive):
    return (archive / "calls").read_text()


def test_it_comes_with_modules_and_busybox(archive, tmp_path):
    made = kernel.ensure(Cache(tmp_path / "cache"), Quiet())

    assert made.version == VERSION
    assert made.image.read_bytes() == b"Image"
    assert made.busybox.read_bytes() == b"\x7fELF"
    assert (made.modules / "kernel/fs/ext4/ext4.ko.xz").read_bytes() == b"module"
    assert (made.modules / "modules.dep").exists()
    assert made.modules.parts[-3:] == ("lib", "modules", VERSION)
    assert made.packages == {KERNEL: "1-2", "busybox-static": "1-2"}
    home = made.image.parent
    kept = {str(p.relative_to(home)) for p in home.rglob("*") if p.is_file() and not p.is_symlink()}
    assert {name for name in kept if "dtb" in name or "man" in name or "config" in name} == set()


def test_the_kernel_behind_the_meta_package_is_fetched(archive, tmp_path):
    kernel.ensure(Cache(tmp_path / "cache"), Quiet())
    assert f"download {KERNEL} busybox-static" in calls(archive)


def test_apt_has_a_root_of_its_own_and_this_machines_proxy(archive, tmp_path):
    kernel.ensure(Cache(tmp_path / "cache"), Quiet())

    conf = (tmp_path / "conf").read_text()
    assert 'APT::Architecture "arm64";' in conf
    assert 'Dir "/' in conf
    assert "proxy.test" in conf
    assert "Post-Invoke" not in conf
    assert 'APT::Get::AllowUnauthenticated "false"' in conf
    sources = (tmp_path / "etc/apt/sources.list").read_text().splitlines()
    assert sources[0] == "deb http://deb.test/debian/ trixie main"
    assert all("trusted" not in line for line in sources)


def test_it_is_fetched_once(archive, tmp_path):
    cache = Cache(tmp_path / "cache")
    assert kernel.present(cache) is None
    first = kernel.ensure(cache, Quiet())
    before = calls(archive).count(" update")

    assert kernel.ensure(cache, Quiet()) == first
    assert kernel.present(cache) == first
    assert calls(archive).count(" update") == before == 1


def test_another_archive_is_another_kernel(archive, tmp_path):
    cache = Cache(tmp_path / "cache")
    kernel.ensure(cache, Quiet())
    tool = archive / "bin/apt-get"
    tool.write_text(tool.read_text().replace("http://deb.test", "http://other.test"))
    assert kernel.present(cache) is None


@pytest.mark.parametrize("name", FILES)
def test_half_of_it_is_nothing(archive, tmp_path, name):
    make_package(archive / f"packages/{name}_1_arm64.deb", name, {"./usr/share/doc/x": b"x"})
    cache = Cache(tmp_path / "cache")

    with pytest.raises(ToolFailedError, match="kernel or busybox"):
        kernel.ensure(cache, Quiet())
    assert kernel.present(cache) is None
    assert list((tmp_path / "cache/scratch").iterdir()) == []


def test_an_archive_that_is_down(archive, tmp_path):
    tool = archive / "bin/apt-get"
    tool.write_text(
        tool.read_text().replace("*update)", "*update) echo 'E: no host' >&2; exit 100;")
    )
    with pytest.raises(ToolFailedError, match="E: no host"):
        kernel.ensure(Cache(tmp_path / "cache"), Quiet())


def test_a_meta_package_that_names_no_kernel(archive, tmp_path):
    (archive / "bin/apt-cache").write_text("#!/bin/sh\necho 'Depends: something'\n")
    with pytest.raises(ToolFailedError, match="names no kernel: Depends: something"):
        kernel.ensure(Cache(tmp_path / "cache"), Quiet())


def test_without_a_debian_archive_it_is_said(archive, tmp_path):
    (archive / "bin/apt-get").write_text("#!/bin/sh\ntrue\n")
    with pytest.raises(MissingToolError, match="knows no Debian archive"):
        kernel.ensure(Cache(tmp_path / "cache"), Quiet())


def test_what_a_package_may_not_write(archive, tmp_path):
    """Links and paths that lead out are left alone, whoever signed them."""
    files = {
        **FILES["busybox-static"],
        "./usr/lib/modules/../../../../../escaped": b"x",
        f"./usr/lib/modules/{VERSION}/link": "/etc/passwd",
    }
    make_package(archive / "packages/busybox-static_1_arm64.deb", "busybox-static", files)
    made = kernel.ensure(Cache(tmp_path / "cache"), Quiet())

    assert not list(tmp_path.rglob("escaped"))
    assert not (made.modules / "link").is_symlink()


def test_the_fixture_is_a_package(archive):
    shown = subprocess.run(
        ["dpkg-deb", "--contents", archive / f"packages/{KERNEL}_1_arm64.deb"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert f"./boot/vmlinuz-{VERSION}" in shown.stdout


def test_what_is_damaged_gives_way(archive, tmp_path):
    cache = Cache(tmp_path / "cache")
    made = kernel.ensure(cache, Quiet())
    record = made.image.parent / "kernel.json"
    record.write_text(json.dumps({"version": VERSION})[:5])
    assert kernel.present(cache) is None
    assert kernel.ensure(cache, Quiet()) == made
