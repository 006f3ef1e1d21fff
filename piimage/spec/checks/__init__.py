"""Checks across the mappings of cluster.yaml: a module per subject, which only adds findings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.spec.checks import (
    accounts,
    addresses,
    mpi,
    nodes,
    references,
    shares,
    system,
    wolfram,
)
from piimage.spec.checks.outside import Outside
from piimage.spec.seats import seats

if TYPE_CHECKING:
    from piimage.spec.draft import Draft
    from piimage.spec.profiles import Shelf

__all__ = ["Outside", "run"]


def run(draft: Draft, shelf: Shelf, outside: Outside) -> None:
    """Run all checks on what is valid of `draft`, which must have a spec."""
    places = seats(draft.spec)
    nodes.check(draft, places, shelf)
    addresses.check(draft, places)
    accounts.check(draft, outside)
    shares.check(draft, places)
    mpi.check(draft, places, outside)
    system.check(draft, outside)
    references.check(draft, outside)
    wolfram.check(draft, outside)
