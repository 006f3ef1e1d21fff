"""Packages of a Debian system: Debian 13 with the small archive of the tests as its only one."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from deb_repository import SOURCES, Repository
from ext4_records import records

from piimage.bake import baked, choice, engines, packaging
from piimage.bake.lock import Layer
from piimage.bake.session import Packages
from piimage.bases import namespace
from piimage.bases.record import Origin
from piimage.bases.store import Store
from piimage.cli.loading import load
from piimage.disk import ext4
from piimage.disk.ext4 import Ext4
from piimage.disk.sparse import allocated_bytes, copy_sparse, hash_file
from piimage.disk.window import window
from piimage.errors import (
    ConfigError,
    PiimageError,
    ToolFailedError,
    VerifyError,
    WriteFailedError,
)
from piimage.progress import Quiet

if TYPE_CHECKING:
    from collections.abc import Mapping

    from piimage.bases.record import Base, Kind

QUIET = Quiet()
CLUSTER = """\
version: 1
name: lab
base: {base}
users: [{{name: ada, uid: 1815}}]
network: {{wired: {{subnet: 10.7.0.0/24}}}}
packages: [{packages}]
roles: {{head: {{packages: [{head}]}}}}
nodes: {{count: {count}, name: "n{{n}}", head: 0}}
"""
#: Nobody sleeps this long by chance.
NAP = "1789.4321"
#: What belongs to a machine, and what a bake may therefore not leave.
TRACES = """\
echo forged >/etc/machine-id
rm -f /etc/resolv.conf; echo 'nameserver 192.0.2.1' >/etc/resolv.conf
for kind in rsa ecdsa ed25519; do
    echo key >/etc/ssh/ssh_host_${kind}_key
    echo key >/etc/ssh/ssh_host_${kind}_key.pub
done
exec >/opt/lab/said 2>&1
echo "$QEMU_CPU"
( uname -m; id -u; ls -d /run/systemd/system; cat /proc/sys/kernel/hostname; ls /sys/class/net ) || :
"""
#: What root of a guest must not be able to do, one a line: a name, and a command that succeeds if it can.
#: open_by_handle_at(2) is call 265 on arm64 and 304 on x86-64, as perl may be of either; a stale handle is one that was
#: looked up.
ESCAPES = r"""
climb perl -e 'mkdir "/tmp/e"; chroot "/tmp/e" or exit 1; chdir ".." for 1..99; chroot "."; exit !-e "@MARKER@"'
handle perl -e '$h = pack("Ii", 8, 1) . "x" x 8; exit !grep { syscall($_, -100, $h, 0) >= 0 || $! == 116 } 265, 304'
sysctl : >>/proc/sys/kernel/core_pattern
sysrq : >>/proc/sysrq-trigger
remount mount -o remount,rw /proc/sys
disk mknod /tmp/disk b @MAJOR@ @MINOR@ && head -c 512 /tmp/disk >/dev/null
devices mount -t devtmpfs none /mnt
tmpfs mount -t tmpfs none /mnt
kill kill -KILL @PID@
parent [ -d /proc/1/root/@HOME@ ] || [ -e /proc/@PID@ ]
memory head -c 1 /proc/kcore | grep -q .
namespace unshare --mount true
rename hostname evil
"""
#: What notes the day, the time, or where things lie.
OF_THE_DAY = """
useradd --system lab-day
ldconfig
mkdir -p /opt/lab/new
echo made >/opt/lab/new/file
ln -s file /opt/lab/new/link
"""
#: What a hook of an initramfs does. `cp` and `ldd` are what native tools stand before.
EARLY = """
verbose=n DESTDIR=/opt/early
mkdir -p $DESTDIR
. /usr/share/initramfs-tools/hook-functions
for program in /bin/sed /usr/bin/grep /usr/bin/awk /usr/bin/cp; do copy_exec $program; done
cp -t /opt/early /usr/bin/ldd
"""
OF_A_MACHINE = (
    "/etc/machine-id", "/etc/resolv.conf", "/etc/hostname", "/usr/sbin/policy-rc.d", "/var/lib/apt/extended_states",
    "/etc/ssh/ssh_host_rsa_key", "/etc/ssh/ssh_host_ecdsa_key", "/etc/ssh/ssh_host_ed25519_key",
)  # fmt: skip


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Repository:
    made = Repository(tmp_path_factory.mktemp("deb"))
    daemon = "#!/bin/sh\n### BEGIN INIT INFO\n# Provides: lab\n### END INIT INFO\ntouch /opt/lab/started\n"
    start = (
        "invoke-rc.d lab start || exit 1\ndeb-systemd-invoke start lab.service >/dev/null 2>&1 || :"
    )
    made.add("pssh", architecture="all")
    made.add("lab-common", architecture="all")
    made.add("lab-plain", more="Depends: lab-common\n", postinst=TRACES)
    made.add("lab-tools", more="Depends: lab-common\n")
    made.add("lab-early", postinst=EARLY)
    made.add("lab-service", files={"/etc/init.d/lab": daemon}, postinst=start)
    made.add("lab-broken", postinst="echo out of luck >&2\nexit 3")
    made.add("lab-odd", postinst="rm /var/lib/dpkg/info/lab-odd.list")
    made.add("lab-slow", postinst=f"echo 'Setting up a nap'\nsleep {NAP}")
    made.add("lab-big", postinst="dd if=/dev/urandom of=/var/tmp/big bs=1M count=300")
    made.add("lab-bent")
    made.add("lab-day", postinst=OF_THE_DAY)
    made.index()
    return made


@dataclass
class Lab:
    """A cache of its own with the guest in it: `lab` is trusted, `outsider` was imported."""

    home: Path
    repository: Repository
    store: Store
    count: int = field(default=0)

    def source(self, *packages: str, base: str = "lab", head: str = "", count: int = 1) -> Path:
        """A cluster.yaml in a directory of its own."""
        self.count += 1
        place = self.home / f"cluster{self.count}" / "cluster.yaml"
        place.parent.mkdir()
        place.write_text(
            CLUSTER.format(base=base, packages=", ".join(packages), head=head, count=count)
        )
        return place

    def packages(self, *packages: str, **more) -> Packages:
        options = {name: more.pop(name) for name in ("locked", "update") if name in more}
        source = more.pop("source", None) or self.source(*packages, **more)
        return Packages(load(source, QUIET), self.store, QUIET, engine="chroot", **options)

    def bake(self, *packages: str, **more) -> Base:
        """Settle and bake the head's packages."""
        session = self.packages(*packages, **more)
        session.settle(session.cluster.roles)
        return session.base(next(r for r in session.cluster.roles if r.name == "head"))

    def start(self, source: Path, *words: str, **options) -> subprocess.Popen:
        argv = [sys.executable, "-m", "piimage", "build", str(source), "--engine", "chroot"]
        return subprocess.Popen(
            [*options.pop("before", ()), *argv, "--node", "n0", *words],
            env={**os.environ, "PIIMAGE_CACHE": str(options.pop("cache", self.store.root))},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
        )  # fmt: skip

    def kept(self) -> set[str]:
        """What is in the cache of bakes; nothing may be half-written or in the way."""
        assert list((self.store.root / "scratch").iterdir()) == []
        return {path.name for path in self.store.root.glob("baked/*")}


@pytest.fixture(scope="module")
def lab(tmp_path_factory, default_base, repository: Repository):
    home = tmp_path_factory.mktemp("lab")
    own = Store()
    debian = own.base(default_base)
    server = repository.serve()
    (home / "lab.sources").write_text(SOURCES.format(port=server.server_address[1]))
    store = Store(home / "cache")
    store.directory("native").rmdir()
    (store.root / "native").symlink_to(own.directory("native"))
    kinds: dict[str, Kind] = {"lab": "made", "outsider": "imported"}
    for name, kind in kinds.items():
        image = home / f"{name}.img"
        copy_sparse(debian.path, image)
        image.chmod(0o600)
        (home / "who").write_text(name)
        _write(
            image,
            root_of(debian),
            remove=[
                p
                for p in ext4.list_tree(debian.path, root_of(debian), ["/etc/apt/sources.list.d"])
                if "." in Path(p).name[1:]
            ]
            + ["/etc/apt/sources.list"],
            files={
                "/etc/apt/sources.list.d/lab.sources": home / "lab.sources",
                "/usr/share/keyrings/lab.gpg": repository.key("lab"),
                "/etc/lab": home / "who",
            },
        )
        origin = Origin.now(kind, "a test")
        store.publish(name, image, origin=origin, image_id=hash_file(image), tools={})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIIMAGE_CACHE", str(store.root))
        yield Lab(home, repository, store)
    server.shutdown()
    server.server_close()
    shutil.rmtree(home)


def _write(image: Path, start: int, *, remove: list[str], files: Mapping[str, Path]) -> None:
    lines = [f"rm {path}" for path in remove]
    for path, source in files.items():
        lines += [
            f"write {source} {path}",
            f"sif {path} uid 0",
            f"sif {path} gid 0",
            f"sif {path} mode 0100644",
        ]
    done = subprocess.run(
        ["debugfs", "-w", "-f", "/dev/stdin", f"{image}?offset={start}"],
        input="\n".join(lines).encode(), capture_output=True, check=True,
    )  # fmt: skip
    assert all(path in ext4.list_tree(image, start, [path]) for path in files), done


def root_of(base: Base) -> int:
    return base.facts.table.partition(base.facts.mounts["/"]).start


def files_of(base: Base, *paths: str) -> tuple[dict[str, str], dict[str, tuple]]:
    """Contents, and kind, mode and owner of each name."""
    start = root_of(base)
    found = ext4.list_tree(base.path, start, paths)
    plain = [path for path, fact in found.items() if fact.kind == "file"]
    texts = ext4.read_files(base.path, start, plain)
    return {path: data.decode() for path, data in texts.items()}, {
        path: (fact.kind, fact.mode, fact.uid, fact.gid, fact.target)
        for path, fact in found.items()
    }


def no_trace_of(lab: Lab) -> None:
    """No process, mount or loop device is left."""
    place = str(lab.home).encode()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            assert NAP.encode() not in (path / "cmdline").read_bytes(), path
            assert place not in (path / "mountinfo").read_bytes(), path
        except OSError:
            continue  # it has ended
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        assert place not in path.read_bytes(), path


@pytest.mark.parametrize("name", ["lab", "outsider"])
def test_packages_are_baked_and_the_machine_leaves_no_trace(lab: Lab, name):
    """By the kernel's mount as by fuse2fs."""
    base = lab.store.base(name)
    assert base.trusted == (name == "lab")
    made = lab.bake("lab-plain", "lab-service", "lab-early", base=name)

    names = {"lab-common", "lab-plain", "lab-service", "lab-early"}
    assert {
        k: v for k, v in made.facts.packages.items() if k not in base.facts.packages
    } == dict.fromkeys(names, "1.2-3")
    texts, found = files_of(made, "/opt/lab", "/etc/lab")
    assert "/opt/lab/started" not in found
    assert texts["/etc/lab"] == name
    assert found["/opt/lab/lab-common"] == ("file", 0o644, 0, 0, None)
    cpu, machine, number, systemd, host, *nets = texts["/opt/lab/said"].splitlines()
    assert cpu == namespace.CPU  # `max`, the default, takes several times as long
    assert (machine, number, "No such file" in systemd) == ("aarch64", "0", True)
    assert host == files_of(base, "/etc/hostname")[0]["/etc/hostname"].strip()
    assert len(nets) == 1
    before, after = files_of(base, *OF_A_MACHINE), files_of(made, *OF_A_MACHINE)
    marks = after[0].pop("/var/lib/apt/extended_states")
    assert "Package: lab-common\nArchitecture: arm64\nAuto-Installed: 1" in marks
    after[1].pop("/var/lib/apt/extended_states")
    before[0].pop("/var/lib/apt/extended_states", None)
    before[1].pop("/var/lib/apt/extended_states", None)
    assert after == before
    assert files_of(made, "/var/lib/apt/lists") == files_of(base, "/var/lib/apt/lists")
    ext4.check(made.path, root_of(made))
    no_trace_of(lab)


def test_what_is_copied_into_an_initramfs_is_the_guests_own_with_its_libraries(lab: Lab):
    """Native tools lie over some of these programs for as long as packages are installed."""
    made = lab.bake("lab-plain", "lab-service", "lab-early")
    start, place = root_of(made), "/opt/early"
    found = ext4.list_tree(made.path, start, [place])
    programs = ("/usr/bin/sed", "/usr/bin/grep", "/usr/bin/mawk", "/usr/bin/cp")
    held = ext4.read_files(
        made.path, start, [*programs, "/usr/bin/ldd", *(place + name for name in programs), f"{place}/ldd"]
    )  # fmt: skip

    for name in programs:
        assert held[place + name] == held[name], name
        assert int.from_bytes(held[name][18:20], "little") == 183, "not for arm64"  # elf(5)
    assert held[f"{place}/ldd"] == held["/usr/bin/ldd"]
    libraries = {path.rpartition("/")[2] for path in found}
    assert {"libc.so.6", "libacl.so.1", "libselinux.so.1", "libpcre2-8.so.0"} <= libraries


@pytest.mark.parametrize("name", ["lab", "outsider"])
def test_a_bake_of_nothing_changes_nothing(lab: Lab, name):
    """Inode by inode: mode, owner, times, xattrs; names and so hard links; the ids of disk and file system."""
    base = lab.store.base(name)
    layer = Layer(base=name, below="0", roles=("all",), wanted=(), packages=(), steps=())

    made = baked.ensure(
        base, layer, script=packaging.script(layer, base.facts), files=tuple,
        engine=lambda: engines.engine(
            choice.choose("chroot", trusted=base.trusted), base, cache=lab.store, progress=QUIET
        ),
        cache=lab.store, progress=QUIET,
    )  # fmt: skip

    start = root_of(base)
    with base.path.open("rb") as one, made.path.open("rb") as other:
        assert one.read(446) == other.read(446)
    count = 0
    with window(base.path, start) as then, window(made.path, start) as now:
        before, after = Ext4(then), Ext4(now)
        assert before.uuid == after.uuid
        old, new = before.inodes, after.inodes
        sb = old.superblock
        for group_then, group_now in zip(old.groups, new.groups, strict=False):
            size = sb.inode_size * sb.inodes_per_group
            theirs = then.read(group_then.inode_table * sb.block_size, size)
            ours = now.read(group_now.inode_table * sb.block_size, size)
            for at in range(0, size, sb.inode_size):
                count += 1
                if count in range(3, 11):  # the file system's own: the journal, room for growing
                    continue
                raw = theirs[at : at + sb.inode_size]
                assert ours[at : at + sb.inode_size] == raw, f"inode {count}"
                block = int.from_bytes(raw[104:108], "little")
                if block and int.from_bytes(raw[26:28], "little"):
                    place = block * sb.block_size
                    assert now.read(place, sb.block_size) == then.read(place, sb.block_size)
                if raw[1] >> 4 == 4:
                    assert after.content(new.inode(count)) == before.content(old.inode(count))
    assert count == sb.inodes
    assert ext4.list_tree(made.path, start, ["/"]) == ext4.list_tree(base.path, start, ["/"])
    no_trace_of(lab)


def test_two_bakes_of_one_lock_hold_the_same(lab: Lab, tmp_path):
    """Name by name: content, mode, owner, attributes, hard links, and times, also of what scripts have written."""
    source = lab.source("lab-day")
    first = lab.bake(source=source)
    first.path.parent.rename(tmp_path / "first")
    time.sleep(1)

    again = lab.bake(source=source)

    start = root_of(again)
    one, other = records(tmp_path / "first" / "image.img", start), records(again.path, start)
    assert {p: (one.get(p), r) for p, r in other.items() if one.get(p) != r} == {}
    assert one.keys() == other.keys()
    assert again.facts == first.facts
    made = lab.store.base("lab").facts.made
    assert {other[f"/opt/lab/new{name}"].mtime for name in ("", "/file", "/link")} == {made}
    texts, _ = files_of(again, "/etc/shadow")
    (line,) = (line for line in texts["/etc/shadow"].splitlines() if line.startswith("lab-day:"))
    assert line.split(":")[2] == str(made // 86400)


def test_the_heads_layer_lies_on_the_workers_and_another_cluster_bakes_nothing(lab: Lab):
    before = lab.kept()
    session = lab.packages("lab-tools", head="lab-bent", count=2)
    session.settle(session.cluster.roles)
    head, worker = (
        next(r for r in session.cluster.roles if r.name == n) for n in ("head", "worker")
    )
    lower, upper = session.base(worker), session.base(head)

    assert lab.kept() - before == {lower.id, upper.id}
    record = json.loads((upper.path.parent / "baked.json").read_bytes())
    assert record["base"] == lower.id
    assert set(upper.facts.packages) - set(lower.facts.packages) == {"lab-bent", "pssh"}

    other = lab.packages("lab-tools", head="lab-bent", count=2)
    other.settle(other.cluster.roles)
    roles = {r.name: r for r in other.cluster.roles}
    assert [other.cached(roles[n]).id for n in ("head", "worker")] == [upper.id, lower.id]


@pytest.mark.parametrize("name", ["lab", "outsider"])
def test_a_package_that_fails_is_named_and_its_log_kept(lab: Lab, name):
    before = lab.kept()

    with pytest.raises(
        ToolFailedError, match="package `lab-broken` could not be installed"
    ) as caught:
        lab.bake("lab-broken", base=name)

    assert caught.value.exit_code == 1
    assert "out of luck" in caught.value.message
    log = Path(re.search(r"the whole log is `([^`]+)`", caught.value.hint)[1])
    assert "out of luck" in log.read_text()
    assert lab.kept() == before
    no_trace_of(lab)
    assert "lab-tools" in lab.bake("lab-tools", base=name).facts.packages


@pytest.mark.parametrize("name", ["lab", "outsider"])
def test_a_guests_root_gets_at_nothing_outside(lab: Lab, name):
    """A package that tries. The process that it would kill and the disk that it would read are this machine's."""
    marker = lab.home / "marker"
    marker.write_text("of this machine")
    disk = marker.stat().st_dev
    host = Path("/proc/sys/kernel/hostname").read_text()
    with subprocess.Popen(["sleep", "900"]) as victim:
        words = {
            "MARKER": marker, "MAJOR": os.major(disk), "MINOR": os.minor(disk), "PID": victim.pid,
            "HOME": str(lab.home).lstrip("/"),
        }  # fmt: skip
        lines = ESCAPES
        for word, value in words.items():
            lines = lines.replace(f"@{word}@", str(value))
        body = "".join(
            f"if ( {command} ) 2>/dev/null; then echo {what}; fi >>/opt/lab/out\n"
            for what, _, command in (line.partition(" ") for line in lines.strip().splitlines())
        )
        ids = "grep CapEff /proc/self/status; cat /proc/self/uid_map; cat /etc/hostname"
        lab.repository.add(
            f"lab-evil-{name}", postinst=f": >/opt/lab/out\n{body}( {ids} ) >/opt/lab/ids"
        )
        lab.repository.index()
        made = lab.bake(f"lab-evil-{name}", base=name)
        assert victim.poll() is None
        victim.kill()

    texts, found = files_of(made, "/opt/lab")
    assert texts["/opt/lab/out"] == ""
    assert found["/opt/lab/out"] == ("file", 0o644, 0, 0, None)
    capabilities, ids, guest = texts["/opt/lab/ids"].splitlines()
    assert int(capabilities.split()[1], 16) == 0xA00404FB
    assert ids.split()[:2] == ["0", "0"] or name == "outsider" or os.geteuid() != 0
    assert ids.split()[1] != "0" or (name == "lab" and os.geteuid() == 0)
    assert guest == files_of(lab.store.base(name), "/etc/hostname")[0]["/etc/hostname"].strip()
    assert Path("/proc/sys/kernel/hostname").read_text() == host
    no_trace_of(lab)


def test_whatever_the_audit_says_fails_the_bake(lab: Lab):
    before = lab.kept()

    with pytest.raises(
        ToolFailedError, match="dpkg --audit finds packages that are not right"
    ) as caught:
        lab.bake("lab-odd")

    assert "lab-odd" in caught.value.message
    assert lab.kept() == before


def test_a_package_that_does_not_exist(lab: Lab):
    before = lab.kept()

    with pytest.raises(ConfigError) as caught:
        lab.bake("lab-plian")

    assert caught.value.exit_code == 2
    assert caught.value.message == (
        "there is no `lab-plian` in the package archive of base `lab`; `packages` of role `head` asks for it"
    )
    assert caught.value.hint.startswith("did you mean `lab-plain`?")
    assert lab.kept() == before


def test_an_archive_that_is_down(lab: Lab):
    before = lab.kept()
    lab.repository.down = True
    try:
        with pytest.raises(
            PiimageError, match="cannot fetch the package archive of base `lab`"
        ) as caught:
            lab.bake("lab-tools", "lab-common")
    finally:
        lab.repository.down = False

    assert caught.value.exit_code == 1
    assert "503" in caught.value.message
    assert lab.kept() == before
    assert "lab-tools" in lab.bake("lab-tools", "lab-common").facts.packages


def test_an_archive_that_somebody_else_signed(lab: Lab):
    before = lab.kept()
    lab.repository.index("stranger")
    try:
        with pytest.raises(
            VerifyError, match="has no valid signature by a key that the base trusts"
        ) as caught:
            lab.bake("lab-tools", "lab-common")
    finally:
        lab.repository.index()

    assert caught.value.exit_code == 4
    assert lab.kept() == before


def test_a_package_that_is_not_what_the_index_says(lab: Lab):
    before = lab.kept()
    (path,) = lab.repository.served.glob("lab-common_*.deb")
    whole = path.read_bytes()
    shutil.rmtree(lab.store.root / "packages", ignore_errors=True)
    path.write_bytes(whole[:-9] + bytes(9))
    try:
        with pytest.raises(
            VerifyError, match="is not what the archive's signed index says"
        ) as caught:
            lab.bake("lab-common")
    finally:
        path.write_bytes(whole)

    assert caught.value.exit_code == 4
    assert "lab-common" in caught.value.message
    assert lab.kept() == before
    assert "lab-common" in lab.bake("lab-common").facts.packages


def test_a_lock_that_would_differ(lab: Lab):
    source = lab.source("lab-tools")
    with pytest.raises(ConfigError, match=r"the lock `.*cluster.lock` is not there"):
        lab.packages(source=source, locked=True).settle(load(source, QUIET).roles)
    first = lab.packages(source=source)
    settled = first.settle(first.cluster.roles)
    again = lab.packages(source=source, locked=True)
    assert again.settle(again.cluster.roles) == settled
    source.write_text(source.read_text().replace("lab-tools", "lab-plain"))

    with lab.start(source, "--locked") as child:
        _, said = child.communicate(timeout=120)

    assert child.returncode == 2
    assert "is of other packages than are wanted now" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("name", ["lab", "outsider"])
def test_ended_in_mid_bake(lab: Lab, name, number):
    before = {path.name for path in lab.store.root.glob("baked/*")}
    with lab.start(lab.source("lab-slow", base=name)) as child:
        until = time.monotonic() + 180
        while not any("a nap" in p.read_text() for p in lab.store.root.glob("scratch/*/bake.log")):
            assert child.poll() is None, child.communicate()
            assert time.monotonic() < until
            time.sleep(0.05)
        child.send_signal(number)
        _, said = child.communicate(timeout=60)

    assert child.returncode == (130 if number == signal.SIGINT else -number)
    assert "Traceback" not in said
    time.sleep(1)  # the kernel ends what is in the namespaces
    no_trace_of(lab)
    assert {path.name for path in lab.store.root.glob("baked/*")} == before
    assert "lab-tools" in lab.bake("lab-tools", base=name).facts.packages
    lab.kept()


@pytest.mark.parametrize("name", ["lab", "outsider"])
def test_a_disk_that_fills_up(lab: Lab, tmp_path, name):
    """A real one: a small tmpfs in a mount namespace, with room for a copy of the base and not for more."""
    image = lab.store.base(name).path
    size = allocated_bytes(image) + (100 << 20)
    script = 'mount -t tmpfs -o size="$1" none "$2" && cp -a --sparse=always "$3/." "$2" && shift 3 && exec "$@"'
    content = tmp_path / "content"
    (content / "bases").mkdir(parents=True)
    content.chmod(0o700)
    (content / "bases" / name).symlink_to(image.parent)
    (content / "native").symlink_to((lab.store.root / "native").resolve())
    place = tmp_path / "cache"
    place.mkdir()
    before = ["unshare", "--mount", "sh", "-c", script, "sh", str(size), str(place), str(content)]

    with lab.start(lab.source("lab-big", base=name), cache=place, before=before) as child:
        _, said = child.communicate(timeout=300)

    assert child.returncode == WriteFailedError.exit_code, said
    assert "PIIMAGE_CACHE" in said
    assert "Traceback" not in said
    assert "lab-big" in lab.bake("lab-big", base=name).facts.packages
    no_trace_of(lab)
