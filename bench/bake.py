"""How long do packages for a cluster's head take: our engines against apt in a plain chroot.

    .venv/bin/python bench/bake.py [--runs N | --once] [--only SIDE ...]

All sides begin with the same base (`piimage base make debian-13`), one lock and the package files on the disk, and end
with an image on the disk that has the packages in it; so the way into the image and out of it counts everywhere.

* `max`, `cortex-a57`: what one does by hand. A copy of the base with room, mounted through a loop device; in there, by
  qemu-user with that CPU (`max` is QEMU's default), `apt-get install` of the files; unmounted, synced. No service is
  started.
* `chroot`, `vm`: `piimage`'s engines from an empty cache: that, and besides the audit, the check of the file systems
  and reading the facts of what came out. Native tools and the machine's kernel are there, as after a first bake.

Sides take turns; medians count. Needs root, for the mount.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from piimage.bake import baked, choice, engines, package_files, packaging, room
from piimage.bases import namespace
from piimage.bases.cache import Cache, cache_root
from piimage.bases.store import Store
from piimage.progress import Quiet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from piimage.bake.lock import Layer, Package
    from piimage.bases.record import Base

BASE = "debian-13"
#: What the mission's head wants: MPI with its compiler and Python, the share, the clock, the operator's tools.
WANTED = (
    "openmpi-bin", "libopenmpi-dev", "python3-mpi4py", "gcc", "libc6-dev", "nfs-kernel-server", "nfs-common", "chrony",
    "pssh", "stress",
)  # fmt: skip
PLAIN, OURS = ("max", "cortex-a57"), ("chroot", "vm")
#: The side that each is compared with, and how many times as fast it should be.
GOALS = (("chroot", "max", 4.0), ("chroot", "cortex-a57", 1.7), ("vm", "max", 1 / 1.5))
_BY_HAND = r"""
set -eu
mount -o "loop,offset=$OFFSET,sizelimit=$SIZE" "$IMAGE" "$ROOT"
mount --bind /dev "$ROOT/dev"
mount -t proc proc "$ROOT/proc"
mount -t tmpfs run "$ROOT/run"
mkdir "$ROOT/run/packages"
mount --bind "$PACKAGES" "$ROOT/run/packages"
printf '#!/bin/sh\nexit 101\n' >"$ROOT/usr/sbin/policy-rc.d"
chmod 755 "$ROOT/usr/sbin/policy-rc.d"
chroot "$ROOT" env -i QEMU_CPU="$CPU" PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive \
	LC_ALL=C.UTF-8 sh -c 'apt-get install --yes --no-install-recommends /run/packages/*.deb' </dev/null
rm "$ROOT/usr/sbin/policy-rc.d"
sync -f "$ROOT"
umount -R "$ROOT"
"""


@dataclass(frozen=True)
class Bench:
    """The base, its layer, the package files and where scratch goes."""

    base: Base
    layer: Layer
    files: tuple[Path, ...]
    scratch: Path

    def run(self, side: str) -> float:
        """Seconds that one side takes."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as name:
            began = time.monotonic()
            if side in PLAIN:
                self._by_hand(side, Path(name))
            else:
                self._by_us(side, Path(name))
            return time.monotonic() - began

    def _by_hand(self, cpu: str, place: Path) -> None:
        image = place / "image.img"
        root = room.copy_with_room(self.base, room.needed(self.layer.packages), image, Quiet())
        packages = place / "packages"
        packages.mkdir()
        for path in self.files:
            (packages / path.name).hardlink_to(path)
        (place / "root").mkdir()
        env = {
            **os.environ, "IMAGE": str(image), "OFFSET": str(root.start), "SIZE": str(root.size), "CPU": cpu,
            "ROOT": str(place / "root"), "PACKAGES": str(packages),
        }  # fmt: skip
        argv = [*namespace.prefix(self.base.facts.architecture), "sh", "-c", _BY_HAND]
        done = subprocess.run(argv, env=env, capture_output=True, check=False)
        if done.returncode != 0:
            sys.exit(f"apt-get failed:\n{(done.stdout + done.stderr).decode()[-3000:]}")
        descriptor = os.open(image, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)

    def _by_us(self, engine: str, place: Path) -> None:
        architecture = self.base.facts.architecture
        chosen = choice.choose(engine, trusted=self.base.trusted, architecture=architecture)
        baked.ensure(
            self.base,
            self.layer,
            script=packaging.script(self.layer, self.base.facts),
            files=lambda: self.files,
            engine=lambda: engines.engine(chosen, self.base, cache=Store(), progress=Quiet()),
            cache=Cache(place / "cache"),
            progress=Quiet(),
        )


def _fetched(store: Store, base: Base) -> tuple[Layer, tuple[Path, ...]]:
    """The layer of the packages wanted, and its files, in the user's own cache."""

    def fetch(packages: Sequence[Package], directory: Path) -> None:
        with store.scratch() as scratch:
            packaging.archive(base, scratch, Quiet()).fetch(packages, directory)

    with store.scratch() as scratch:
        wanted = dict.fromkeys(WANTED, "this benchmark")
        layer = packaging.archive(base, scratch, Quiet()).resolve(wanted, ())
    return layer, package_files.ensure(layer.packages, cache=store, fetch=fetch, progress=Quiet())


def _report(found: dict[str, list[float]]) -> None:
    medians = {side: statistics.median(runs) for side, runs in found.items()}
    for side, runs in found.items():
        words = " ".join(f"{seconds:.1f}" for seconds in runs)
        print(f"  {side:12} {medians[side]:7.1f} s   ({words})")
    for ours, theirs, goal in GOALS:
        if ours in medians and theirs in medians:
            ratio = medians[theirs] / medians[ours]
            print(f"  {ours:6} is {ratio:5.2f} times as fast as {theirs:12} (wanted: {goal:.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3, help="of each side; medians are compared")
    parser.add_argument("--once", action="store_true", help="one run of each side")
    parser.add_argument("--only", nargs="+", choices=(*PLAIN, *OURS), help="some of the sides")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("this needs root, since the plain chroot mounts an image")
    store = Store()
    base = store.base(BASE)
    layer, files = _fetched(store, base)
    sides = options.only or [*OURS, *reversed(PLAIN)]
    for side in sides:  # tools and kernel that a first bake fetches
        if side in OURS:
            engines.engine(choice.choose(side, trusted=True), base, cache=store, progress=Quiet())
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    print(f"{len(files)} packages, {megabytes:.0f} MB, into base {base.name} {base.id[:12]}")
    found: dict[str, list[float]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory(dir=cache_root(), prefix="bench-") as name:
        bench = Bench(base, layer, files, Path(name))
        for _ in range(1 if options.once else options.runs):
            for side in sides:
                found[side].append(bench.run(side))
                print(f"  {side}: {found[side][-1]:.1f} s", flush=True)
    _report(found)


if __name__ == "__main__":
    main()
