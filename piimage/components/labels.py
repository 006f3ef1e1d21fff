"""SELinux labels of all that is written: without one a file is `unlabeled_t`, which programs are denied."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from piimage.delta import Absent, Delta, Directory, Symlink, Tree
from piimage.distros import file_contexts

if TYPE_CHECKING:
    from piimage.delta import Entry
    from piimage.facts import Facts


def labelled(delta: Delta, facts: Facts) -> Delta:
    """The delta with the labels that the base's own policy has for each path; as it is where there is no SELinux.

    What moves keeps its labels: policies have the same for the homes of all users.
    """
    contexts = file_contexts.contexts(facts)
    if contexts is None:
        return delta
    # The FAT has no labels: it gets one by its mount, as a whole.
    entries = {
        path: entry if path.startswith(f"{facts.firmware}/") else _labelled(path, entry, contexts)
        for path, entry in delta.entries.items()
    }
    return Delta(entries, delta.owners)


def _labelled(path: str, entry: Entry, contexts: file_contexts.Contexts) -> Entry:
    match entry:
        case Absent() | Tree():
            return entry
        case Directory():
            kind = "dir"
        case Symlink():
            kind = "link"
        case _:
            kind = "file"
    return entry if entry.label else replace(entry, label=contexts.label(path, kind))
