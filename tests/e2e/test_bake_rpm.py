"""Packages of an RPM system: a guest that says it is Fedora, with an arm64 rpm, and a small repository."""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import rpm_volume
from ext4_records import differences, records
from rpm_repository import Repository

from piimage.bake import baked, choice, engines, package_files, packaging
from piimage.bake.engine import Job
from piimage.bake.vm import VmEngine
from piimage.bases.cache import Cache
from piimage.bases.record import Origin
from piimage.bases.store import Store
from piimage.disk import census, rootfs
from piimage.disk.ext4 import open_ext4
from piimage.disk.sparse import copy_sparse, hash_file
from piimage.errors import ConfigError, ToolFailedError, VerifyError
from piimage.progress import Quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from piimage.bake.engine import Engine
    from piimage.bake.lock import Layer, Package
    from piimage.bases.record import Base
    from piimage.facts import FileFact

    #: Names to a layer of them, `below` others.
    Resolve = Callable[..., Layer]

QUIET = Quiet()
#: Turns a Debian with rpm into something that piimage takes for a Fedora.
BECOME_FEDORA = """\
set -eu
rm -f /etc/os-release
printf 'ID=fedora\\nVERSION_ID=43\\nPRETTY_NAME="Fedora Linux 43"\\n' >/etc/os-release
mkdir -p /etc/rpm /etc/yum.repos.d /etc/pki/rpm-gpg
echo '%_dbpath /usr/lib/sysimage/rpm' >/etc/rpm/macros
cp /run/piimage/packages/KEY-lab /etc/pki/rpm-gpg/KEY-lab-43-aarch64
cp /run/piimage/packages/lab.repo /etc/yum.repos.d/
rpm --install --justdb --nodeps --noscripts --nosignature /run/piimage/packages/lab-system-*.rpm
rm -rf /var/lib/dpkg
find /etc/systemd/system -lname '*/systemd-networkd.service' -delete
printf '[Service]\\nExecStart=/bin/true\\n[Install]\\nWantedBy=multi-user.target\\n' \
    >/usr/lib/systemd/system/NetworkManager.service
ln -sf /usr/lib/systemd/system/NetworkManager.service /etc/systemd/system/multi-user.target.wants/
"""
REPO = """\
[lab]
name=The lab
baseurl=http://127.0.0.1:{port}/
gpgcheck=0
gpgkey=file:///etc/pki/rpm-gpg/KEY-lab-$releasever-$basearch
[discs]
name=Left out: it is this machine's
baseurl=file:///srv/discs
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    made = Repository(tmp_path_factory.mktemp("rpm"))
    made.add("lab-system", tags="Provides: /bin/sh /usr/bin/sh rtld(GNU_HASH)\nAutoReqProv: no")
    made.add(
        "lab-common", tags="BuildArch: noarch", architecture="noarch", files="%attr(0640,root,tty) /opt/lab/common",
        sections="%install\nmkdir -p %{buildroot}/opt/lab\necho common >%{buildroot}/opt/lab/common",
    )  # fmt: skip
    said = "( uname -m; id -u; ls -d /run/systemd/system; head -c 100 /etc/hostname ) >/opt/lab/said 2>&1"
    made.add("lab-mpi", tags="Requires: lab-common", sections=f"%post\n{said} || :")
    made.add("lab-tools", tags="Epoch: 2\nRequires: lab-common")
    made.add("lab-broken", sections="%post\necho out of luck\nexit 3")
    made.add("lab-refused", sections="%pre\nexit 1")
    made.add("lab-lonely", tags="Requires: nobody-has-this")
    made.add("lab-unsigned", key=None)
    made.add("lab-foreign", key="stranger")
    made.index()
    return made


@pytest.fixture(scope="module")
def server(repository: Repository):
    handler = functools.partial(_Silent, directory=str(repository.served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_words):
        """Nothing."""


@dataclass
class Lab:
    """The guest as a base of a cache of its own; `count` is of what was resolved."""

    store: Store
    base: Base
    count: int = 0


@pytest.fixture(scope="module")
def lab(tmp_path_factory, default_base, repository: Repository, server):
    home = tmp_path_factory.mktemp("lab")
    own = Store()
    debian = own.base(default_base)
    with_rpm = bake(own, debian, layer_of(debian, home / "apt", {"rpm": "this test"}))
    repo = home / "lab.repo"
    repo.write_text(REPO.format(port=server.server_address[1]))
    image = home / "fedora.img"
    copy_sparse(with_rpm.path, image)
    image.chmod(0o600)
    facts = with_rpm.facts
    (home / "scratch").mkdir()
    job = Job(
        image=image,
        root=facts.table.partition(facts.mounts["/"]),
        architecture=facts.architecture,
        script=BECOME_FEDORA.encode(),
        packages=(repository.key("lab"), repo, *repository.served.glob("lab-system-*.rpm")),
        log=home / "log",
        scratch=home / "scratch",
        trusted=True,
    )
    engine_for(own, with_rpm).run(job, QUIET)
    store = Store(home / "cache")
    base = store.publish(
        "fedora",
        image,
        origin=Origin.now("imported", "a test"),
        image_id=hash_file(image),
        tools={},
    )
    return Lab(store, base)


def engine_for(store: Cache, base: Base) -> Engine:
    return engines.engine(choice.choose("chroot"), base, cache=store, progress=QUIET)


def layer_of(base: Base, root: Path, wanted: dict[str, str], below: Sequence[Layer] = ()) -> Layer:
    root.mkdir()
    return packaging.archive(base, root, QUIET).resolve(wanted, below)


def bake(store: Cache, base: Base, layer: Layer, engine: Engine | None = None) -> Base:
    def fetch(packages: Sequence[Package], directory: Path) -> None:
        root = directory / "archive"
        root.mkdir()
        packaging.archive(base, root, QUIET).fetch(packages, directory)

    return baked.ensure(
        base,
        layer,
        script=packaging.script(layer, base.facts),
        files=lambda: package_files.ensure(
            layer.packages, cache=store, fetch=fetch, progress=QUIET
        ),
        engine=lambda: engine or engine_for(store, base),
        cache=store,
        progress=QUIET,
    )


def find(lab: Lab, layer: Layer) -> Base | None:
    return baked.find(lab.base, layer, packaging.script(layer, lab.base.facts), lab.store)


@pytest.fixture
def resolve(lab: Lab, tmp_path: Path) -> Resolve:
    def resolved(*names: str, below: Sequence[Layer] = ()) -> Layer:
        lab.count += 1
        return layer_of(
            lab.base, tmp_path / f"dnf{lab.count}", dict.fromkeys(names, "`packages`"), below
        )

    return resolved


def content(base: Base, *paths: str) -> tuple[dict[str, str], dict[str, FileFact]]:
    start = base.facts.table.partition(base.facts.mounts["/"]).start
    with open_ext4(base.path, start) as ext4:
        return {p: data.decode() for p, data in ext4.read_files(paths).items()}, ext4.list_tree(
            paths
        )


def test_the_facts_are_rpms(lab: Lab):
    assert lab.base.facts.packages == {"lab-system": "1.2-3"}
    assert lab.base.facts.architecture == "arm64"
    assert lab.base.facts.os.id == "fedora"


def test_packages_are_baked_with_what_they_need(lab: Lab, resolve: Resolve):
    layer = resolve("lab-mpi")
    made = bake(lab.store, lab.base, layer)

    assert [(p.name, p.architecture, p.automatic) for p in layer.packages] == [
        ("lab-common", "noarch", True),
        ("lab-mpi", "aarch64", False),
    ]
    assert made.facts.packages == dict.fromkeys(("lab-system", "lab-common", "lab-mpi"), "1.2-3")
    texts, found = content(made, "/opt/lab/common", "/opt/lab/said", "/etc/machine-id")
    assert texts["/opt/lab/common"] == "common\n"
    assert (found["/opt/lab/common"].mode & 0o7777, found["/opt/lab/common"].gid) == (0o640, 5)
    machine, number, systemd, name = texts["/opt/lab/said"].splitlines()
    assert (machine, number, "No such file" in systemd) == ("aarch64", "0", True)
    assert name == content(lab.base, "/etc/hostname")[0]["/etc/hostname"].strip()
    assert texts["/etc/machine-id"] == content(lab.base, "/etc/machine-id")[0]["/etc/machine-id"]
    assert bake(lab.store, lab.base, resolve("lab-mpi")).id == made.id

    above = resolve("lab-tools", below=[layer])
    assert [p.name for p in above.packages] == ["lab-tools"]
    assert bake(lab.store, made, above).facts.packages["lab-tools"] == "2:1.2-3"


def test_both_engines_install_the_same(lab: Lab, resolve: Resolve, tmp_path: Path):
    """As `test_engine_vm` has it for dpkg."""
    layer = resolve("lab-mpi", "lab-tools")
    began = time.time()
    root = lab.base.facts.table.partition(lab.base.facts.mounts["/"]).start
    before = records(lab.base.path, root)
    found = []
    for engine in (engine_for(lab.store, lab.base), VmEngine(cache=Store())):
        store = Cache(tmp_path / engine.name)
        made = bake(store, lab.base, layer, engine)
        assert made.tools["engine"] == engine.name
        found.append(records(made.path, root))

    assert {
        path for path in found[0].keys() ^ before.keys() if not path.startswith("/opt/lab")
    } == set()
    one, other = found
    assert differences(one, other, began).keys() <= {
        "/usr/lib/sysimage/rpm/rpmdb.sqlite"
    }  # when each was installed


def test_a_root_in_a_logical_volume_gets_them_and_room_for_them(
    lab: Lab, resolve: Resolve, tmp_path: Path
):
    """As on Fedora Server: by a machine of our own, grown and labelled in the appliance."""
    base = rpm_volume.moved(lab.base, lab.store, tmp_path)
    root = base.facts.table.partition(base.facts.mounts["/"])
    before = census.of_root(base.path, root.start)
    layer = layer_of(base, tmp_path / "dnf", {"lab-mpi": "`packages`"})
    chosen = choice.choose(trusted=base.trusted, kind="xfs")
    engine = engines.engine(chosen, base, cache=Store(), progress=QUIET)

    made = bake(lab.store, base, layer, engine)

    found = made.facts.table.partition(made.facts.mounts["/"])
    after = census.of_root(made.path, found.start)
    assert (made.tools["engine"], root.volume) == ("vm", "fedora-hats/root")
    assert made.facts.packages["lab-common"] == "1.2-3"
    assert found.size > root.size
    assert made.facts.table.partition(2).size > base.facts.table.partition(2).size
    rootfs.check(made.path, found)
    assert {p for p in after.keys() ^ before.keys() if not p.startswith("/opt/lab")} == set()
    changed = {path for path, seen in before.items() if after[path] != seen}
    assert {p for p in changed if not p.startswith("/usr/lib/sysimage/rpm")} == {"/opt"}
    labels = {path: seen.attributes.get("security.selinux") for path, seen in after.items()}
    assert {p for p, label in labels.items() if label} == {
        p for p in after if f"{p}/".startswith("/opt/")
    }
    assert labels["/opt/lab/common"] == rpm_volume.LABEL
    assert (after["/opt/lab/common"].mode, after["/opt/lab/common"].gid) == (0o640, 5)


def test_a_layer_of_nothing_changes_nothing_but_its_name(lab: Lab, resolve: Resolve):
    layer = resolve("lab-system")

    assert (layer.packages, layer.steps) == ((), ())


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("lab-mpy", ConfigError, "no `lab-mpy` in the package repositories of base `fedora`; `packages` asks for it"),
        ("lab-lonely", ToolFailedError, "nothing provides nobody-has-this needed by lab-lonely"),
    ],
)  # fmt: skip
def test_what_cannot_be_resolved_is_named(resolve: Resolve, name, error, words):
    with pytest.raises(error) as caught:
        resolve(name)

    assert words in caught.value.message


@pytest.mark.parametrize("name", ["lab-unsigned", "lab-foreign"])
def test_packages_without_the_images_signature_are_refused(lab: Lab, resolve: Resolve, name):
    layer = resolve(name)

    with pytest.raises(VerifyError, match="no valid signature") as caught:
        bake(lab.store, lab.base, layer)

    assert name in caught.value.message
    assert find(lab, layer) is None


@pytest.mark.parametrize(("name", "word"), [("lab-broken", "out of luck"), ("lab-refused", "%pre")])
def test_a_scriptlet_that_fails_names_its_package(lab: Lab, resolve: Resolve, name, word):
    layer = resolve(name)

    with pytest.raises(
        ToolFailedError, match=f"package `{name}-1.2-3.*could not be installed"
    ) as caught:
        bake(lab.store, lab.base, layer)

    assert word in caught.value.message
    assert "bake-" in caught.value.hint
    assert find(lab, layer) is None
    assert not list((lab.store.root / "scratch").iterdir())


def test_a_damaged_package_is_refused(lab: Lab, resolve: Resolve, repository: Repository):
    layer = resolve("lab-tools")
    (path,) = repository.served.glob("lab-tools-*.rpm")
    whole = path.read_bytes()
    shutil.rmtree(lab.store.root / "packages", ignore_errors=True)
    path.write_bytes(whole[:-9] + bytes(9))
    try:
        with pytest.raises((VerifyError, ToolFailedError)):
            bake(lab.store, lab.base, layer)
    finally:
        path.write_bytes(whole)

    assert bake(lab.store, lab.base, layer).facts.packages["lab-tools"] == "2:1.2-3"


def test_repositories_that_are_down(resolve: Resolve, server):
    server.shutdown()
    server.server_close()

    with pytest.raises(
        ToolFailedError, match="cannot read the package repositories of base `fedora`"
    ):
        resolve("lab-common")
