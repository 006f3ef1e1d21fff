"""Each file of `bases/` is what the sample cluster's head gets over one vendor's image: files, modes, contents.

The bases are laid out like the vendors' (tests/fixtures), with the sample's packages already in them.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures import debian_raspi, raspios, ubuntu
from fixtures.facts_of import facts_of

from piimage import resolve
from piimage.components import mpi
from piimage.delta import Absent, Directory, File, Slot, Symlink, Tree
from piimage.plan import plan

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests/unit"))  # phony_facts
HERE = Path(__file__).parent / "bases"
CARDS = {
    card.name: card
    for card in (
        raspios.trixie(),
        raspios.trixie(raspios.Choice("armhf", "desktop", "2025-12-04", user="someone")),
        raspios.bookworm(),
        raspios.bookworm(raspios.Choice("armhf", "desktop")),
        ubuntu.jammy(),
        ubuntu.noble(),
        ubuntu.resolute(),
        debian_raspi.bookworm(),
        debian_raspi.trixie(debian_raspi.Choice(family=3)),
    )
}
#: What the tests of components hold, and is the same over every base.
_ELSEWHERE = ("/usr/lib/piimage/", "/usr/local/bin/", "/etc/piimage/")
_LONG = 60


def text(content: bytes) -> list[str]:
    lines = content.decode().rstrip("\n").split("\n")
    if len(lines) > _LONG:
        lines = [*lines[:_LONG], f"... {len(lines) - _LONG} more"]
    return [f"    {line}".rstrip() for line in lines]


def words(path, entry, filled):
    """An entry in a line, and its content below."""
    match entry:
        case File():
            return [f"file {path} {entry.mode:04o} {entry.uid}:{entry.gid}", *text(entry.content)]
        case Slot():
            head = f"slot {path} {entry.mode:04o} {entry.uid}:{entry.gid} {entry.size} bytes"
            return [head, *text(filled[path])]
        case Directory():
            return [f"dir {path} {entry.mode:04o} {entry.uid}:{entry.gid}"]
        case Symlink():
            return [f"link {path} -> {entry.target}"]
        case Absent():
            return [f"gone {path}"]
        case Tree():
            return [f"moved {path} from {entry.source} {entry.uid_map} {entry.gid_map}"]


def planned(card):
    """The head's variant and its stamp, as text."""
    import phony_facts  # noqa: PLC0415 -- found only now that its folder is on the path

    cluster = resolve.load(ROOT / "cluster.yaml", env={}).cluster
    facts = facts_of(card)
    if mpi.lacks("openmpi", facts):
        cluster = replace(cluster, mpi=None)
    head = cluster.nodes[0]
    secrets = phony_facts.secrets(cluster, passwords={}, psk=phony_facts.PSK)
    variant = plan.plan_variant(cluster, head.role, facts)
    stamp = plan.plan_stamp(cluster, head, facts, variant, "f" * 64, secrets)
    lines = [f"kernel {' '.join(variant.cmdline)}", *(f"waits {s}" for s in variant.deferred)]
    for path, entry in variant.delta:
        if not path.startswith(_ELSEWHERE):
            lines += words(path, entry, stamp.slots)
    return "".join(f"{line}\n" for line in lines).replace(stamp.build, "BUILD")


@pytest.mark.parametrize("name", CARDS)
def test_what_a_head_gets_over_a_vendors_image(name, update):
    found = planned(CARDS[name])
    expected = HERE / f"{name}.txt"
    if update:
        expected.write_text(found)
    assert found == expected.read_text()


def test_every_expectation_has_its_base():
    assert {path.stem for path in HERE.glob("*.txt")} == set(CARDS)
