"""The archive: an image's apt configuration in a private root, and fake apt tools on PATH."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from phony import Node, make_phony

from piimage.bake import lock
from piimage.bake.apt import Apt, steps
from piimage.bake.apt_root import own_sources, write_root
from piimage.bake.dpkg_records import fields, installed
from piimage.bake.lock import Package, Step
from piimage.bases.facts_reader import read_facts
from piimage.bases.record import Base, Origin
from piimage.errors import (
    ConfigError,
    ExitCode,
    PiimageError,
    ToolFailedError,
    VerifyError,
    WriteFailedError,
)
from piimage.progress import Quiet

ROOT = Path("/private")
SOURCES = """\
Types: deb
URIs: http://deb.test/debian
Suites: trixie
Components: main
Signed-By: /usr/share/keyrings/test.pgp
"""
CONTROL = """\
Package: {name}
Version: {version}
Architecture: {architecture}
Depends: libc6 (>= 2.41)
Installed-Size: 91
Filename: pool/{name}.deb
Size: 1000
SHA256: {sha256}
Description: about {name}
 more about it
"""
SHOWN = "\n".join(
    CONTROL.format(name=n, version=v, architecture=a, sha256=s * 64)
    for n, v, a, s in (
        ("libfoo1", "1:2.0-3", "arm64", "a"),
        ("foo", "2.0-3", "all", "b"),
        ("base-files", "13.9", "arm64", "c"),
    )
)
SIMULATED = """\
Reading package lists...
The following NEW packages will be installed:
  foo libfoo1
Remv old [1.0]
Inst libfoo1 (1:2.0-3 Debian:13.8/stable, Debian-Security:13/stable-security [arm64])
Conf libfoo1 (1:2.0-3 Debian:13.8/stable [arm64])
Inst base-files [13.8] (13.9 Debian:13.9/stable [arm64]) []
Inst foo (2.0-3 Debian:13.8/stable [all])
Conf base-files (13.9 Debian:13.9/stable [arm64])
Conf foo (2.0-3 Debian:13.8/stable [all])
"""
FAILING = (
    'case "$*" in *update*) {update} ;; *install*) {install} ;; *download*) {download} ;; esac\n'
)
FOO = Package(
    name="foo", version="1", architecture="all", sha256="a" * 64, size=1, installed=1, file="foo"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    image = make_phony(
        tmp_path_factory.mktemp("apt") / "phony.img",
        root_size=12 << 20,
        root={
            "/etc/apt/sources.list": Node(
                b"deb [trusted=yes arch=arm64 signed-by=/usr/share/keyrings/test.pgp] http://deb.test/ trixie main\n"
            ),
            "/etc/apt/sources.list.d/more.sources": Node(SOURCES.encode()),
            "/etc/apt/sources.list.d/more.disabled": Node(b"deb http://other.test/ x y\n"),
            "/etc/apt/apt.conf.d/99hook": Node(b'APT::Update::Pre-Invoke {"touch /tmp/evil";};\n'),
            "/etc/apt/preferences.d/pin": Node(b"Package: *\nPin: origin x\nPin-Priority: 1\n"),
            "/etc/apt/trusted.gpg.d/key.asc": Node(b"KEY"),
            "/usr/share/keyrings/test.pgp": Node("real.pgp"),
            "/usr/share/keyrings/real.pgp": Node(b"REAL KEY"),
            "/usr/share/keyrings/unused.pgp": Node(b"UNUSED"),
            "/var/lib/dpkg/arch": Node(b"arm64\narmhf\n"),
        },
    )
    facts = read_facts(image, image_id="1" * 64)
    return Base(name="phony", path=image, id="1" * 64, facts=facts, origin=Origin.now("made", "x"))


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Puts programs first on PATH."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")

    def program(name, script):
        (directory / name).write_text(f"#!/bin/sh\n{script}\n")
        (directory / name).chmod(0o755)

    program(
        "apt-config",
        "echo 'Acquire::http::Proxy \"http://proxy.test:3128\";'; echo 'APT::Foo \"x\";'",
    )
    return program


@pytest.fixture
def apt(fake, base, tmp_path):
    """The archive with tools that answer as apt does, and the log of what they were asked."""
    root, log = tmp_path / "root", tmp_path / "log"
    root.mkdir()
    for name, text in (("simulated", SIMULATED), ("shown", SHOWN)):
        (tmp_path / name).write_text(text)
    fake(
        "apt-get",
        f'echo "$APT_CONFIG $*" >>{log}; case "$*" in *--simulate*) cat {tmp_path}/simulated ;; '
        "*download*) echo 'dlstatus:1:50.0:half'; touch fetched ;; esac",
    )
    fake("apt-cache", f'echo "$*" >>{log}; cat {tmp_path}/shown')
    return Apt(base, root, Quiet()), log


def test_a_layer_is_what_apt_would_install(apt, base):
    archive, _ = apt

    layer = archive.resolve({"foo": "me"}, [])

    assert layer.below == lock.installed_digest(base.facts)
    assert layer.wanted == ("foo",)
    assert [(p.name, p.version, p.automatic, p.replaces) for p in layer.packages] == [
        ("base-files", "13.9", False, "13.8"),
        ("foo", "2.0-3", False, None),
        ("libfoo1", "1:2.0-3", True, None),
    ]
    assert layer.packages[2].file == "libfoo1_1%3a2.0-3_arm64.deb"
    assert (layer.packages[1].size, layer.packages[1].installed) == (1000, 91)
    assert layer.steps == (
        Step("remove", ("old",)),
        Step("unpack", ("libfoo1",)),
        Step("configure", ("libfoo1",)),
        Step("unpack", ("base-files", "foo")),
    )


def test_a_layer_on_another_is_resolved_as_if_that_were_installed(apt):
    archive, _ = apt
    first = archive.resolve({"foo": "me"}, [])

    second = archive.resolve({"bar": "me"}, [first])

    assert second.below == first.digest()
    status = (archive.root / "var/lib/dpkg/status").read_text()
    assert "Package: foo\nVersion: 2.0-3\n" in status
    assert status.count("Package: base-files\n") == 1
    assert "Version: 13.9\n" in status
    archive.resolve({"bar": "me"}, [])
    assert "Package: foo" not in (archive.root / "var/lib/dpkg/status").read_text()


def test_the_archive_is_read_once_and_with_the_private_root(apt):
    archive, log = apt

    archive.resolve({"foo": "me"}, [])
    archive.resolve({"foo": "me"}, [])

    asked = log.read_text().splitlines()
    assert sum("update" in line for line in asked) == 1
    roots = [line for line in asked if line.startswith(str(archive.root / "apt.conf"))]
    assert len(roots) == 3


def test_files_are_fetched_by_exact_version(apt, tmp_path):
    archive, log = apt
    layer = archive.resolve({"foo": "me"}, [])
    place = tmp_path / "files"
    place.mkdir()

    archive.fetch(layer.packages, place)

    assert (place / "fetched").exists()
    assert "download base-files=13.9 foo=2.0-3 libfoo1=1:2.0-3" in log.read_text()


@pytest.fixture
def failing(fake, base, tmp_path):
    """An archive with an apt-get that fails in one step."""

    def archive(*, update="exit 0", install="exit 0", download="exit 0"):
        fake("apt-get", FAILING.format(update=update, install=install, download=download))
        fake("apt-cache", "exit 0")
        (tmp_path / "root").mkdir()
        return Apt(base, tmp_path / "root", Quiet())

    return archive


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("E: Unable to locate package foo", "there is no `foo` in the package archive"),
        (
            "E: Package 'foo' has no installation candidate",
            "`foo` is only a virtual package in the package archive",
        ),
    ],
)
def test_a_package_that_is_not_there(failing, said, words):
    archive = failing(install=f'echo "{said}" >&2; exit 100')

    with pytest.raises(ConfigError, match=words) as caught:
        archive.resolve({"foo": "component `x`"}, [])

    assert "component `x` asks for it" in caught.value.message


def test_a_mistyped_name_is_met_with_the_one_that_was_meant(failing, fake):
    archive = failing(install="echo 'E: Unable to locate package opnempi-bin' >&2; exit 100")
    fake("apt-cache", '[ "$*" = "pkgnames op" ] && printf "openmpi-bin\\nopenmpi-doc\\nopus\\n"')

    with pytest.raises(ConfigError) as caught:
        archive.resolve({"opnempi-bin": "component `x`"}, [])

    assert caught.value.hint.startswith("did you mean `openmpi-bin`? else correct its name")


def test_packages_that_do_not_go_together(failing):
    said = "E: Unable to correct problems, you have held broken packages."
    archive = failing(install=f'echo " foo : Depends: bar"; echo "{said}" >&2; exit 100')

    with pytest.raises(ToolFailedError, match="cannot be installed together") as caught:
        archive.resolve({"foo": "component `x`"}, [])

    assert "foo : Depends: bar" in caught.value.message


FAILURES = [
    ("Err:1 http://deb.test trixie InRelease\n  Could not connect", ToolFailedError, ExitCode.FAILED),
    ("E: The repository is not signed. NO_PUBKEY 0123456789", VerifyError, ExitCode.VERIFY_FAILED),
    ("W: the following signatures were invalid: BADSIG 01", VerifyError, ExitCode.VERIFY_FAILED),
    ("E: Failed to fetch x  Hash Sum mismatch", VerifyError, ExitCode.VERIFY_FAILED),
    ("E: Write error - write (28: No space left on device)", WriteFailedError, ExitCode.WRITE_ERROR),
]  # fmt: skip


@pytest.mark.parametrize("step", ["update", "download"])
@pytest.mark.parametrize("failure", FAILURES)
def test_an_archive_that_does_not_give(failing, tmp_path, step, failure):
    said, kind, code = failure
    archive = failing(**{step: f'echo "{said}" >&2; exit 100'})

    with pytest.raises(kind) as caught:
        archive.fetch([FOO], tmp_path)

    assert caught.value.exit_code == code
    assert caught.value.hint
    assert said.splitlines()[0][:40] in caught.value.message


@pytest.mark.parametrize(
    "said",
    [
        "Err:2 http://old.test buster Release\n  404  Not Found [IP: 192.0.2.1 80]",
        "E: The repository 'http://old.test buster Release' does not have a Release file.",
    ],
)
def test_an_old_release_that_has_moved(failing, tmp_path, said):
    archive = failing(update=f'echo "{said}" >&2; exit 100')

    with pytest.raises(ToolFailedError, match="is not where the image's sources say") as caught:
        archive.fetch([FOO], tmp_path)

    assert "old releases move" in caught.value.hint


def test_lists_of_another_time_are_left_in_the_image(fake, tmp_path):
    """With them apt would ask whether a suite that has another name by now is meant (apt-secure(8))."""
    old = "/var/lib/apt/lists/deb.test_debian_dists_trixie_InRelease"
    image = make_phony(
        tmp_path / "phony.img",
        root_size=12 << 20,
        root={"/etc/apt/sources.list.d/more.sources": Node(SOURCES.encode()), old: Node(b"Suite: testing\n")},
    )  # fmt: skip
    root = tmp_path / "apt"
    root.mkdir()

    write_root(root, image, read_facts(image, image_id="1" * 64))

    assert list((root / "var/lib/apt/lists").iterdir()) == [root / "var/lib/apt/lists/partial"]


def test_a_version_that_the_archive_no_longer_has(failing, tmp_path):
    archive = failing(download="echo \"E: Version '1' for 'foo' was not found\" >&2; exit 100")

    with pytest.raises(PiimageError, match="no longer has the locked version of `foo`") as caught:
        archive.fetch([FOO], tmp_path)

    assert "lock --update" in caught.value.hint


def test_the_private_root_has_the_images_data_and_not_its_commands(fake, base, tmp_path):
    root = tmp_path / "apt"
    root.mkdir()

    environment = write_root(root, base.path, base.facts)

    found = {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()}
    assert found == {
        "apt.conf",
        "etc/apt/preferences.d/pin",
        "etc/apt/sources.list",
        "etc/apt/sources.list.d/more.sources",
        "etc/apt/trusted.gpg.d/key.asc",
        "usr/share/keyrings/test.pgp",
        "var/lib/apt/extended_states",
        "var/lib/dpkg/arch",
        "var/lib/dpkg/status",
    }
    assert (root / "usr/share/keyrings/test.pgp").read_bytes() == b"REAL KEY"
    line = (root / "etc/apt/sources.list").read_text()
    assert "trusted" not in line
    assert f"signed-by={root}/usr/share/keyrings/test.pgp" in line
    text = Path(environment["APT_CONFIG"]).read_text()
    assert 'APT::Architectures { "arm64"; "armhf"; };' in text
    assert 'Acquire::http::Proxy "http://proxy.test:3128";' in text
    assert "APT::Foo" not in text
    assert "evil" not in text


@pytest.mark.parametrize(
    ("text", "expected", "keys"),
    [
        ("deb http://x.test y z", "deb http://x.test y z", set()),
        ("deb [signed-by=/a.pgp,/b.asc] http://x y z",
         "deb [signed-by=/private/a.pgp,/private/b.asc] http://x y z", {"/a.pgp", "/b.asc"}),
        ("deb [signed-by=ABCDEF0123] http://x y z", "deb [signed-by=ABCDEF0123] http://x y z", set()),
        ("deb [allow-insecure=yes trusted=yes arch=arm64] http://x y z", "deb [  arch=arm64] http://x y z", set()),
        ("deb file:/srv/mirror y z", "", set()),
        ("deb [arch=arm64] cdrom:[disc]/ y z", "", set()),
        ("deb mirror+file:/etc/apt/mirrors/d.list y z",
         "deb mirror+file:/private/etc/apt/mirrors/d.list y z", set()),
    ],
)  # fmt: skip
def test_sources_in_the_list_format(text, expected, keys):
    assert own_sources("/etc/apt/sources.list", text, ROOT) == (f"{expected}\n", keys)


@pytest.mark.parametrize(
    ("text", "expected", "keys"),
    [
        ("Types: deb\nURIs: http://x\nSigned-By: /a.pgp /b.asc\nTrusted: yes\nSuites: s",
         "Types: deb\nURIs: http://x\nSigned-By: /private/a.pgp /private/b.asc\nSuites: s",
         {"/a.pgp", "/b.asc"}),
        ("Types: deb\nURIs: file:/srv\nSuites: s\n\nTypes: deb\nURIs: http://x\nSuites: t",
         "Types: deb\nURIs: http://x\nSuites: t", set()),
        ("URIs: http://x\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc",
         "URIs: http://x\nSigned-By: \n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc", set()),
        ("URIs: mirror+file:///etc/apt/mirrors/d.list\nAllow-Insecure: yes",
         "URIs: mirror+file:/private/etc/apt/mirrors/d.list\n", set()),
    ],
)  # fmt: skip
def test_sources_in_deb822_format(text, expected, keys):
    found, named = own_sources("/etc/apt/sources.list.d/x.sources", text, ROOT)

    assert (found, named) == (f"{expected}\n", keys)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ("", []),
        ("ua ub ca cb", ["u a b"]),
        ("ua ca ub cb", ["u a", "c a", "u b"]),
        ("rx ua ca ub uc cb cc", ["r x", "u a", "c a", "u b c"]),
        ("ra rb", ["r a b"]),
    ],
)
def test_as_few_steps_as_keep_the_order(events, expected):
    actions = {"u": "unpack", "c": "configure", "r": "remove"}

    found = steps((actions[word[0]], word[1:]) for word in events.split())

    assert [f"{step.action[0]} {' '.join(step.names)}" for step in found] == expected


def test_a_status_with_packages_added_and_taken_away():
    status = (
        "Package: a\nStatus: install ok installed\nArchitecture: arm64\nVersion: 1\n\n"
        "Package: b\nArchitecture: all\n"
    )
    added = [SHOWN.split("\n\n")[0], "Package: a\nVersion: 2\nArchitecture: arm64"]

    found = [fields(paragraph) for paragraph in installed(status, added, {"b"}).split("\n\n")]

    assert [(f["Package"], f["Version"], f["Status"]) for f in found] == [
        ("libfoo1", "1:2.0-3", "install ok installed"),
        ("a", "2", "install ok installed"),
    ]
    assert found[0]["Depends"] == "libc6 (>= 2.41)"
    assert not found[0].keys() & {"Filename", "SHA256", "Size"}


def test_whom_a_layer_is_for_does_not_decide(apt):
    archive, _ = apt
    layer = archive.resolve({"foo": "me"}, [])

    assert replace(layer, roles=("x",)).digest() == layer.digest()
