"""A plan for people, from its record."""

from __future__ import annotations

import textwrap
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from piimage.preview.against import Comparison
    from piimage.preview.record import Record

_SIGNS = {"add": "+", "change": "~", "remove": "-"}
_WISHES = {"enable": "+", "disable": "-", "mask": "masked:"}
#: Where stdout is no terminal.
_WIDTH = 110
#: Less room is left to the terminal, which breaks lines where it likes.
_LEAST = 40
_LABEL = 12
#: Items up to this length are not broken over two lines; a stand-in for their blanks sees to it.
_SHORT, _BLANK = 60, "\0"


def text(
    record: Record, *, own: bool, new: bool, old: bool, columns: int | None = None
) -> Iterator[str]:
    """Lines; `own` adds the files of each node, `new` what files hold that come or go, `old` how others change.

    Lists are wrapped to `columns`, those of the terminal; paths and diffs are left as they are.
    """
    width = max(_LEAST, min(_WIDTH, columns or _WIDTH))
    for number, variant in enumerate(record["variants"]):
        yield from [""] if number else []
        yield from _variant(variant, width, new=new, old=old)
    yield ""
    for node in record["nodes"]:
        if node["variant"] is None:
            continue
        count = len(node["files"])
        if own:
            yield f"node `{node['name']}`: {count} files of its own, secrets as words in angle brackets"
            yield from _files(node["files"], new=new, old=old)
        else:
            yield f"node `{node['name']}`: {count} files of its own; `--node {node['name']}` lists them"
    for variant in record["variants"]:
        if not variant["exact"]:
            names = ", ".join(variant["nodes"])
            yield f"not yet known of {names}: what is made of packages that are not installed yet"
            yield "next: `piimage build` installs them, and the plan is exact from then on"
            return


def comparison(
    compared: Comparison, last: str, unknown: str, cards: Mapping[str, bool | None]
) -> Iterator[str]:
    """What becomes of variants and cards; `unknown` says why secrets could not be compared.

    `cards` says of the cards that were written whether they hold this already.
    """
    yield f"since `{last}`:"
    for variant in compared.variants:
        state = "is new" if variant.new else "is made anew" if variant.why else "stays as it is"
        yield f"variant `{variant.name}` {state}"
        if not variant.new:
            yield from (f"    {reason}" for reason in variant.why)
    yield from _stale(compared)
    yield from _listed("new", [node.name for node in compared.nodes if node.new])
    yield from _listed("no more in the cluster", compared.gone)
    yield from _listed("written cards that hold this already", [n for n, c in cards.items() if c])
    other = [name for name, holds in cards.items() if holds is False]
    yield from _listed("written cards that hold another build", other)
    if compared.blind:
        names = ", ".join(compared.blind)
        reason = unknown or "the earlier plan was made without them"
        yield f"keys, passwords and passphrases were not compared for {names}: {reason}"


def _stale(compared: Comparison) -> Iterator[str]:
    """Cards by what becomes of them, with the reasons."""
    fates: dict[tuple[str, ...], list[str]] = {}
    for node in compared.nodes:
        if not node.new:
            fates.setdefault(node.why, []).append(node.name)
    for why, names in fates.items():
        cards = f"card{'s' * (len(names) != 1)}"
        yield (
            f"stale {cards}: {', '.join(names)}"
            if why
            else f"{cards} that may stay: {', '.join(names)}"
        )
        yield from (f"    {reason}" for reason in why)


def _listed(label: str, names: Sequence[str]) -> Iterator[str]:
    if names:
        yield f"{label}: {', '.join(names)}"


def _variant(variant: Record, width: int, *, new: bool, old: bool) -> Iterator[str]:
    wrapped = partial(_wrapped, width)
    yield f"variant `{variant['role']}`: {', '.join(variant['nodes'])}"
    yield from wrapped("base", [f"{variant['base']['name']} ({variant['base']['id'][:12]})"])
    yield from wrapped("packages", _packages(variant), empty="none beyond the base's")
    yield from wrapped("", [f"- {name}" for name in variant["packages_removed"]])
    yield from wrapped(
        "users",
        [f"{_SIGNS[user['action']]} {user['name']} ({user['uid']})" for user in variant["users"]],
    )
    yield from wrapped(
        "units", [f"{_WISHES[wish]} {name}" for name, wish in variant["units"].items()]
    )
    for sentence in variant["waits_for_first_boot"]:
        yield from wrapped("first boot", [sentence])
    for component, reason in variant["waits_for_packages"].items():
        yield from wrapped("waits", [f"`{component}` for its packages: {reason}"])
    counts = Counter(file["action"] for file in variant["files"])
    words = (("change", "changed"), ("add", "added"), ("remove", "removed"))
    yield from wrapped("files", [f"{counts[action]} {word}" for action, word in words])
    yield from _files(variant["files"], new=new, old=old)


def _packages(variant: Record) -> list[str]:
    """What the lock has, or what is wanted where there is none."""
    if variant["packages"] is None:
        count = len(variant["wanted"])
        return [
            f"{count} wanted and what they need (no lock yet: `piimage lock`)",
            *variant["wanted"],
        ]
    names = list(variant["packages"])
    state = f"{len(names)} package{'s' * (len(names) != 1)}"
    state += "" if variant["exact"] else ", not installed yet"
    return [f"{state}: {names[0]}", *names[1:]] if names else []


def _wrapped(width: int, label: str, words: Iterable[str], empty: str = "") -> Iterator[str]:
    """A label, and after it words on as many lines as it takes."""
    line = ", ".join(word.replace(" ", _BLANK) if len(word) < _SHORT else word for word in words)
    if line or empty:
        lines = textwrap.wrap(
            line or empty,
            width,
            initial_indent=f"  {label:{_LABEL}}",
            subsequent_indent=" " * (_LABEL + 2),
            break_long_words=False,
            break_on_hyphens=False,
        )
        yield from (text.replace(_BLANK, " ") for text in lines)


def _files(files: list[Record], *, new: bool, old: bool) -> Iterator[str]:
    for file in files:
        yield f"    {_SIGNS[file['action']]} {file['path']}{_remark(file)}"
        if old if file["action"] == "change" else new:
            yield from (f"        {line}".rstrip() for line in file["diff"])


def _remark(file: Record) -> str:
    """What a name alone does not say: what it is, whose it is, who may read it."""
    remarks = []
    if file["kind"] in ("dir", "link"):
        remarks.append({"dir": "directory", "link": "link"}[file["kind"]])
    usual = {"file": "0644", "dir": "0755", "link": "0777"}.get(file["kind"])
    if file["action"] != "remove":
        if file["mode"] != usual:
            remarks.append(file["mode"])
        if (file["uid"], file["gid"]) != (0, 0):
            remarks.append(f"{file['uid']}:{file['gid']}")
        if file["slot"] and file["sha256"] is None:
            remarks.append("filled for each node")
    return f"  ({', '.join(remarks)})" if remarks else ""
