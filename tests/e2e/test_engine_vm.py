"""The engine `vm` on a machine that allows nothing else, and beside the engine `chroot`: one lock, one result."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from bakes import bake
from ext4_records import differences, records

from piimage.bake import baked, kernel, lock, packaging
from piimage.bake.engine import Job
from piimage.bake.lock import Layer, Package, Step
from piimage.bake.vm import VmEngine
from piimage.bases.cache import Cache
from piimage.bases.store import Store
from piimage.disk import ext4, fat
from piimage.disk.sparse import copy_sparse
from piimage.errors import ToolFailedError
from piimage.facts import Filesystem, Partition
from piimage.progress import Quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = Path(__file__).parents[2]
#: A capability, a hard link, a diversion, alternatives, Python modules, accounts and units.
PACKAGES = ("fping", "unzip", "vim-tiny", "pssh", "rpcbind")
CLUSTER = f"""\
version: 1
name: bench
base: debian-13
users: [{{name: ada, uid: 1815}}]
network: {{wired: {{subnet: 10.7.0.0/24}}}}
packages: [{", ".join(PACKAGES)}]
nodes: [{{name: solo}}]
"""
NOBODY = 65534
#: What a build host without privilege does not have; `--keep-caps` for the one write to a sysctl.
CONFINE = """
read -r go
echo 0 >/proc/sys/user/max_user_namespaces
[ ! -e /dev/kvm ] || mount --bind /dev/null /dev/kvm
mount --bind {repository} {checkout}
exec setpriv --reuid {nobody} --regid {nobody} --clear-groups --inh-caps=-all sh -c {command!r}
"""


@pytest.fixture(scope="module")
def start(tmp_path_factory, default_base) -> Host:
    """Start a command on a build host without root, user namespaces, KVM or anybody's cache but its own.

    As an ordinary user the tests have no user namespaces by having no `newuidmap` on PATH.
    """
    home = tmp_path_factory.mktemp("host")
    (home / "cluster.yaml").write_text(CLUSTER)
    place = home / "cache/bases" / default_base
    shutil.copytree(Store().root / "bases" / default_base, place, copy_function=_copy)
    checkout = home / "checkout"
    checkout.mkdir()
    programs = home / "bin"
    programs.mkdir()
    env = {
        "PATH": "/usr/bin:/bin", "HOME": str(home), "PIIMAGE_CACHE": str(home / "cache"), "PYTHONPATH": str(checkout),
        "TMPDIR": str(home), "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", home], check=True)
        for parent in home.parents:
            parent.chmod(parent.stat().st_mode | 0o011)
    else:
        checkout.rmdir()
        checkout.symlink_to(REPOSITORY)
        for program in Path("/usr/bin").iterdir():
            if program.name != "newuidmap":
                (programs / program.name).symlink_to(program)
        env["PATH"] = str(programs)

    return Host(home, checkout, env)


@dataclass(frozen=True)
class Host:
    """A build host: its commands have `env`, and see the repository at `checkout`."""

    home: Path
    checkout: Path
    env: dict[str, str]

    @contextmanager
    def __call__(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        python = sys.executable.replace(str(REPOSITORY), str(self.checkout))
        command = f"cd {self.home} && exec {python} -m piimage {' '.join(words)}"
        argv = ["sh", "-c", command]
        if os.geteuid() == 0:
            script = CONFINE.format(
                repository=REPOSITORY, checkout=self.checkout, nobody=NOBODY, command=command
            )
            argv = ["unshare", "--user", "--mount", "--keep-caps", "sh", "-c", script]
        # Whoever started the tests in the background has Ctrl-C ignored, and so would what they start.
        argv = ["env", "--default-signal=INT", *argv]
        child = subprocess.Popen(
            argv, env=self.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )  # fmt: skip
        try:
            if os.geteuid() == 0:
                _map_ids(child.pid)
            child.stdin.write("go\n")
            child.stdin.flush()
            yield child
        finally:
            child.kill()
            child.communicate()


def _map_ids(pid):
    """Let a new user namespace have the same ids as ours."""
    ours = Path("/proc/self/ns/user").readlink()
    while Path(f"/proc/{pid}/ns/user").readlink() == ours:
        time.sleep(0.01)
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{pid}/{name}").write_text("0 0 65536\n", encoding="ascii")


def _copy(source, target):
    copy_sparse(Path(source), Path(target))
    shutil.copystat(source, target)


def test_doctor_says_vm_and_why(start: Host):
    with start("doctor", "--json") as child:
        said, _ = child.communicate(timeout=120)
    found = json.loads(said)
    assert found["engine"]["name"] == "vm"
    assert found["engine"]["reason"].startswith("no chroot, since ")
    if os.geteuid() == 0:
        assert found["engine"]["reason"].endswith("(sysctl user.max_user_namespaces=0)")
    else:
        assert "`newuidmap`" in found["engine"]["reason"]
    bake = next(p for p in found["purposes"] if p["name"] == "bake")
    assert bake["ok"]
    assert bake["how"] == f"vm: {found['engine']['reason']}"


def test_an_interrupted_build_leaves_no_machine(start: Host):
    """Ctrl-C while packages are being installed in there."""
    with start("build", "cluster.yaml", "--node", "solo") as child:
        machine = _wait_for(lambda: _machine_of(child.pid), child)
        _wait_for(lambda: _has_said_something(start.home), child)
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=30)
        assert child.returncode == 130
    assert not Path(f"/proc/{machine}").exists()
    assert list(start.home.glob("cache/baked/*")) == []
    assert list(start.home.glob("cache/scratch/*")) == []
    assert not (start.home / "dist").exists()


def _has_said_something(home):
    return any(p.stat().st_size for p in home.glob("cache/scratch/*/bake.log"))


def _machine_of(pid):
    """The QEMU that `pid` has started, or None."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text(encoding="ascii", errors="replace").rpartition(")")
        except OSError:
            continue
        if int(rest.split()[1]) == pid and "(qemu-system" in name:
            return int(path.parent.name)
    return None


def _wait_for(look, child, timeout=300):
    until = time.monotonic() + timeout
    while not (found := look()):
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < until
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def by_vm(start: Host):
    """What the host without privilege builds: the baked image, and what it said."""
    with start("build", "cluster.yaml", "--node", "solo") as child:
        _, said = child.communicate(timeout=900)
    sys.stderr.write(said)
    assert child.returncode == 0
    (image,) = start.home.glob("cache/baked/*/image.img")
    return image, said


def test_a_build_without_privilege_says_how_and_is_right(start: Host, by_vm):
    _, said = by_vm
    assert "engine `vm` bakes: no chroot, since " in said
    facts = Store().base("debian-13").facts
    image = start.home / "dist/bench/solo.img"
    root = facts.table.partition(facts.mounts["/"]).start
    ext4.check(image, root)
    found = ext4.list_tree(image, root, ["/usr/bin/fping", "/usr/bin/zipinfo", "/usr/sbin/rpcbind"])
    assert len(found) == 3
    status = ext4.read_files(image, root, ["/var/lib/dpkg/status"])["/var/lib/dpkg/status"].decode()
    assert {line for line in status.splitlines() if line.startswith("Status:")} == {
        "Status: install ok installed"
    }


def test_both_engines_give_the_same_image(tmp_path: Path, start: Host, by_vm):
    """Name by name: mode, owner, size, content, xattrs, hard links, and times of what the bake did not write."""
    image, _ = by_vm
    settled = start.home / "cluster.lock"
    (layer,) = lock.read(settled).layers
    other = bake(Store().base("debian-13"), layer, "chroot", Cache(tmp_path / "cache"))
    assert other.tools["engine"] == "chroot"

    facts = other.facts
    root = facts.table.partition(facts.mounts["/"]).start
    firmware = facts.table.partition(facts.mounts[facts.firmware]).start
    ours, theirs = (records(path, root) for path in (image, other.path))

    assert len(ours) > 10_000
    assert differences(ours, theirs, settled.stat().st_mtime) == {}
    assert fat.list_tree(image, firmware) == fat.list_tree(other.path, firmware)


def test_a_failing_package_is_named_and_its_log_kept(tmp_path: Path, default_base):
    """In the machine as in a chroot: the package, its last words, where the log is, and nothing in the cache."""
    package = _failing_package(tmp_path)
    layer = Layer(
        base="debian-13", below="0", roles=("all",), wanted=("bad",), packages=(package,),
        steps=(Step("unpack", ("bad",)),),
    )  # fmt: skip
    base = Store().base(default_base)
    cache = Cache(tmp_path / "cache")

    with pytest.raises(ToolFailedError) as caught:
        baked.ensure(
            base, layer, script=packaging.script(layer, base.facts), files=lambda: (tmp_path / package.file,),
            engine=lambda: VmEngine(cache=Store()), cache=cache, progress=Quiet(),
        )  # fmt: skip

    assert caught.value.message.startswith("package `bad` could not be installed")
    assert "no frobnicator" in caught.value.message
    (kept,) = (cache.root / "logs").iterdir()
    assert f"`{kept}`" in caught.value.hint
    assert "Setting up bad (1.0)" in kept.read_text()
    assert list(cache.root.glob("baked/*")) == []
    assert list(cache.root.glob("scratch/*")) == []


def _failing_package(directory: Path) -> Package:
    """A package whose postinst ends in an error, in `directory`."""
    control = directory / "bad/DEBIAN"
    control.mkdir(parents=True)
    (control / "control").write_text(
        "Package: bad\nVersion: 1.0\nArchitecture: all\nMaintainer: x <x@example>\nDescription: fails\n"
    )
    (control / "postinst").write_text("#!/bin/sh\necho no frobnicator >&2\nexit 3\n")
    (control / "postinst").chmod(0o755)
    path = directory / "bad_1.0_all.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", "bad", path], cwd=directory, check=True
    )
    data = path.read_bytes()
    return Package(
        name="bad", version="1.0", architecture="all", sha256=hashlib.sha256(data).hexdigest(), size=len(data),
        installed=1, file=path.name,
    )  # fmt: skip


@pytest.fixture
def small_job(tmp_path: Path) -> Callable[[bytes], Job]:
    """A job in an image that holds a busybox and nothing else, so that a machine is there in seconds."""
    tree = tmp_path / "tree"
    for name in ("bin", "usr/bin", "dev", "proc", "run", "tmp"):
        (tree / name).mkdir(parents=True)
    shutil.copy(kernel.ensure(Store(), Quiet()).busybox, tree / "bin/busybox")
    (tree / "bin/busybox").chmod(0o755)
    for name in ("bin/sh", "bin/sleep", "usr/bin/env"):
        (tree / name).symlink_to("/bin/busybox")
    image = tmp_path / "image.img"
    with image.open("wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["sfdisk", "-q", image], input=b"label: dos\nstart=2048, type=83\n", check=True)
    subprocess.run(
        ["mke2fs", "-q", "-t", "ext4", "-E", "offset=1048576,root_owner=0:0", "-d", tree, image, "30m"], check=True
    )  # fmt: skip
    root = Partition(
        number=1, start=1 << 20, size=31 << 20, type="83", filesystem=Filesystem(type="ext4")
    )
    (tmp_path / "scratch").mkdir()

    def make(script: bytes) -> Job:
        return Job(
            image=image, root=root, architecture="arm64", script=script, log=tmp_path / "log",
            scratch=tmp_path / "scratch",
        )  # fmt: skip

    return make


def test_a_guest_that_hangs_is_ended(small_job: Callable[[bytes], Job]):
    job = small_job(b"echo piimage: hanging\nexec sleep 3600\n")
    with pytest.raises(ToolFailedError, match=r"the virtual machine said nothing for 25 s"):
        VmEngine(cache=Store(), stall=25).run(job, Quiet())
    assert job.log.read_text() == "piimage: hanging\n"
    assert _machine_of(os.getpid()) is None
