"""How long does the first image of a node take: `piimage build` against virt-customize.

    .venv/bin/python bench/variant.py [--runs N] [--only one|five] [--whole-cluster]

Both sides start from the same ready base (`piimage base make debian-13`) with the role's packages already baked,
since virt-customize cannot install those of another architecture, and end with configured card
images. Ours is the command a user types, in a new process, with an empty cache but for these bases, with the lock, and
with a new state directory: variant, stamp, image, bmap and checksums. Theirs is a copy of the baked base and one
run of virt-customize (package guestfs-tools) that makes the edits of the same plan: every file, mode, link,
directory and removal of the node's Delta, the content of its slots, and its files on the firmware
partition. virt-customize 1.48 has no option for owners, so theirs leaves them out. Keys, hashes and the
list of edits are made before its clock starts. Runs of the two sides alternate; medians count.

One node: node 3 of the sample. Five nodes: five workers, so one variant and five stamped images against
five runs; with `--whole-cluster` the sample's own five nodes, head and four workers, so two variants.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from piimage import resolve
from piimage.bake import lock
from piimage.bake.session import Packages
from piimage.bases.cache import cache_root
from piimage.bases.store import Store
from piimage.delta import Absent, Directory, File, Slot, Symlink, Tree
from piimage.disk import guestfs
from piimage.plan.plan import plan_stamp, plan_variant
from piimage.progress import Quiet
from piimage.state.state import open_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from piimage.bases.record import Base
    from piimage.cluster import Cluster

SAMPLE = Path(__file__).resolve().parent.parent / "cluster.yaml"
BASE = "debian-13"
ONE = ("3",)


@dataclass(frozen=True)
class Race:
    """One comparison: the cluster.yaml's text, which nodes are built, and what was baked for it.

    `lock` is the text of the lock, `bases` the baked base of each role by the role's name.
    """

    title: str
    yaml: str
    nodes: tuple[str, ...]
    lock: bytes
    bases: Mapping[str, Base]

    def write(self, directory: Path) -> Path:
        """Write cluster.yaml and its lock; gives the former's path."""
        source = directory / "cluster.yaml"
        source.write_text(self.yaml, encoding="utf-8")
        lock.location(source).write_bytes(self.lock)
        return source


@dataclass(frozen=True)
class Bench:
    """The base, where scratch goes, and the environment that both sides run in."""

    base: Base
    scratch: Path
    environment: dict[str, str]

    def ours(self, race: Race) -> float:
        """Seconds of `piimage build` for the nodes, from an empty cache that holds the base."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as name:
            place = Path(name)
            source = race.write(place)
            _share_bases(self.base, place / "cache")
            chosen = [word for node in race.nodes for word in ("--node", node)]
            argv = [sys.executable, "-m", "piimage", "build", "--locked", str(source), *chosen]
            environment = {**self.environment, "PIIMAGE_CACHE": str(place / "cache")}
            return _timed(lambda: _run([*argv, "--format", "img"], environment))

    def theirs(self, race: Race) -> float:
        """Seconds of a copy and a run of virt-customize for each of the nodes."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as name:
            place = Path(name)
            cluster = resolve.load(race.write(place)).cluster
            jobs = []
            for node in race.nodes:
                base = race.bases[cluster.node(node).role.name]
                commands = edits(cluster, node, base, place / f"edits-{node}")
                jobs.append((base, place / f"{node}.img", commands))
            return sum(_timed(lambda job=job: self._customize(*job)) for job in jobs)

    def _customize(self, base: Base, image: Path, commands: Path) -> None:
        _run(["cp", "--sparse=always", str(base.path), str(image)], self.environment)
        image.chmod(0o600)
        _run(customize(image, commands), self.environment)
        descriptor = os.open(image, os.O_RDONLY)
        os.fsync(descriptor)  # ours has its bytes on the disk too when it ends
        os.close(descriptor)


def customize(image: Path, commands: Path) -> list[str]:
    """The command line of their side."""
    options = ["--quiet", "--no-network", "--format", "raw", "-a", str(image)]
    return ["virt-customize", *options, "--commands-from-file", str(commands)]


def edits(cluster: Cluster, name: str, base: Base, directory: Path) -> Path:
    """Write the edits of a node's plan as virt-customize commands, with their files, to `directory`."""
    node = cluster.node(name)
    variant = plan_variant(cluster, node.role, base.facts)
    secrets = open_state(cluster).secrets(cluster, os.environ)
    stamp = plan_stamp(cluster, node, base.facts, variant, "0" * 64, secrets)
    directory.mkdir()
    lines: list[str] = []
    for path, entry in variant.delta:
        content = stamp.slots.get(path, b"") if isinstance(entry, Slot) else b""
        lines += _commands(path, entry, content, directory, base.facts.firmware)
    firmware = f"{base.facts.firmware}/"
    for path, content in stamp.firmware.items():
        lines += _commands(firmware + path, File(content), content, directory, base.facts.firmware)
    lines.append(f"hostname {node.name}")
    commands = directory / "commands"
    commands.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return commands


def _commands(
    path: str, entry: object, content: bytes, directory: Path, firmware: str
) -> Iterator[str]:
    """The commands for one entry; files are uploaded under numbers, since `:` parts names there."""
    match entry:
        case File() | Slot():
            source = directory / str(len(list(directory.iterdir())))
            source.write_bytes(entry.content if isinstance(entry, File) else content)
            yield f"upload {source}:{path}"
            if not path.startswith(f"{firmware}/"):  # FAT has no modes
                yield f"chmod {entry.mode:04o}:{path}"
        case Directory():
            yield f"mkdir {path}"
            yield f"chmod {entry.mode:04o}:{path}"
        case Symlink():
            yield f"link {entry.target}:{path}"
        case Absent():
            yield f"delete {path}"
        case Tree():
            yield f"move {entry.source}:{path}"


def _share_bases(base: Base, cache: Path) -> None:
    """Put the base, and all that was baked, into another cache without copying their images."""
    root = base.path.parents[2]
    for directory in (base.path.parent, *(root / "baked").iterdir()):
        home = cache / directory.relative_to(root)
        home.mkdir(parents=True, mode=0o700)
        for path in directory.iterdir():
            if path.suffix == base.path.suffix:
                os.link(path, home / path.name)
            else:
                shutil.copy2(path, home)


def _run(argv: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(argv, env=environment, capture_output=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{argv[0]} failed:\n{done.stderr.decode(errors='replace')[-3000:]}")


def _timed(work: Callable[[], None]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def _environment(base: Base) -> dict[str, str]:
    """The same backend for both sides, found out by one launch, which warms libguestfs up too."""
    with guestfs.Appliance(base.path, progress=Quiet(), readonly=True):
        pass
    settings = os.environ.get("LIBGUESTFS_BACKEND_SETTINGS")
    if settings is None and guestfs._kvm_known_bad():  # noqa: SLF001 -- what the launch above found out
        settings = "force_tcg"
    chosen = {} if settings is None else {"LIBGUESTFS_BACKEND_SETTINGS": settings}
    return {"LIBGUESTFS_BACKEND": "direct", **os.environ, **chosen}


def _races(store: Store, scratch: Path, only: str | None, *, whole_cluster: bool) -> list[Race]:
    sample = SAMPLE.read_text(encoding="utf-8")
    six, count = re.subn(r"\bcount: 5\b", "count: 6", sample)
    if not count:
        sys.exit("the sample cluster.yaml has no `count: 5` any more: adapt this script")
    five = "first images of five workers", six, ("1", "2", "3", "4", "5")
    if whole_cluster:
        five = "first images of the sample's five nodes", sample, ("0", "1", "2", "3", "4")
    races = {"one": ("first image of node 3", sample, ONE), "five": five}
    return [_baked(store, scratch, *race) for key, race in races.items() if only in (None, key)]


def _baked(store: Store, scratch: Path, title: str, yaml: str, nodes: tuple[str, ...]) -> Race:
    """The race with its packages settled and baked into the user's own cache."""
    source = scratch / "cluster.yaml"
    source.write_text(yaml, encoding="utf-8")
    cluster = resolve.load(source).cluster
    packages = Packages(cluster, store, Quiet())
    roles = dict.fromkeys(cluster.node(node).role for node in nodes)
    packages.settle(roles)
    bases = {role.name: packages.base(role) for role in roles}
    return Race(title, yaml, nodes, lock.location(source).read_bytes(), bases)


def _report(race: Race, ours: list[float], theirs: list[float]) -> None:
    mine, other = statistics.median(ours), statistics.median(theirs)
    print(f"\n{race.title}, median of {len(ours)}")
    for name, median, runs in (("piimage", mine, ours), ("virt-customize", other, theirs)):
        print(f"  {name:15} {median:7.1f} s   ({' '.join(f'{seconds:.1f}' for seconds in runs)})")
    print(f"  ratio           {other / mine:7.2f}     (above 1: piimage is faster)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3, help="of each side; medians are compared")
    parser.add_argument("--only", choices=("one", "five"), help="one of the two comparisons")
    parser.add_argument("--whole-cluster", action="store_true", help="five nodes with their head")
    parser.add_argument("--show", action="store_true", help="print their commands and do nothing")
    options = parser.parse_args()
    store = Store()
    base = store.base(BASE)
    with tempfile.TemporaryDirectory(dir=cache_root(), prefix="bench-") as name:
        races = _races(store, Path(name), options.only, whole_cluster=options.whole_cluster)
        if options.show:
            cluster = resolve.load(races[0].write(Path(name))).cluster
            role = cluster.node("3").role.name
            commands = edits(cluster, "3", races[0].bases[role], Path(name, "edits"))
            print(commands.read_text(encoding="utf-8"), end="")
            return
        if shutil.which("virt-customize") is None:
            sys.exit("virt-customize is missing: `apt-get install guestfs-tools`")
        bench = Bench(base, Path(name), _environment(base))
        settings = bench.environment.get("LIBGUESTFS_BACKEND_SETTINGS", "none")
        print(f"base {base.name} {base.id[:12]}, backend settings: {settings}", flush=True)
        for race in races:
            ours, theirs = [], []
            for _ in range(options.runs):
                ours.append(bench.ours(race))
                theirs.append(bench.theirs(race))
            _report(race, ours, theirs)


if __name__ == "__main__":
    main()
