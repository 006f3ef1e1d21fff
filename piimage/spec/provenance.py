"""Where each value of a resolved cluster came from, by field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from piimage.report import dotted
from piimage.spec import model
from piimage.spec.merge import LISTS, SCALARS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from piimage.spec.merge import Merged
    from piimage.spec.place import FieldPath
    from piimage.spec.seats import Seat
    from piimage.spec.source import Document

DEFAULT = "default"
#: What is resolved per node.
_PER_NODE = ("nodes", "roles")


def provenance(
    spec: model.Spec, document: Document, merged: Sequence[tuple[Seat, Merged]]
) -> dict[str, str]:
    """Fields such as `users[0].uid` and `nodes[2].target`, each with its origin.

    That is `FILE:LINE`, `profile KIND/NAME (...)` or `default`, perhaps with a remark in brackets. A list that
    several places add to has one for itself, which is the last of them, and one for each entry.
    """
    found: dict[str, str] = {}
    for name in type(spec).model_fields:
        found[name] = _origin(document, (name,))
        if name not in _PER_NODE:
            found |= {
                dotted(path): _origin(document, path)
                for path in _inside(getattr(spec, name), (name,))
            }
    for seat, traits in merged:
        at = f"nodes[{seat.number}]"
        for name, path in _identity(seat):
            found[f"{at}.{name}"] = _origin(document, path)
        found[f"{at}.address"] = _address(spec, document, seat)
        for name in (*SCALARS, *LISTS):
            found[f"{at}.{name}"] = traits.origins.get(name, DEFAULT)
        found |= {f"{at}.{name}": origin for name, origin in traits.origins.items()}
        for index in range(len(seat.entry.cmdline) if seat.entry else 0):
            line = _line(document, (*seat.path, "cmdline", index))
            place = len(traits.cmdline) + index  # after those of its role
            found[f"{at}.cmdline"] = found[f"{at}.cmdline[{place}]"] = line
    return found


def _identity(seat: Seat) -> Iterator[tuple[str, FieldPath]]:
    """Where a node's own fields would be written; in count form `head` says who has which role."""
    for name in ("name", "role", "mac", "board"):
        written = "head" if name == "role" and seat.entry is None else name
        yield name, (*seat.path, written)


def _inside(value: Any, path: FieldPath) -> Iterator[FieldPath]:  # noqa: ANN401 -- whatever a model holds
    """Paths of all fields of the mappings below a value."""
    if isinstance(value, model.Model):
        for name in type(value).model_fields:
            yield (*path, name)
            yield from _inside(getattr(value, name), (*path, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _inside(item, (*path, index))


def _origin(document: Document, path: FieldPath) -> str:
    return _line(document, path) if path in document.keys else DEFAULT


def _line(document: Document, path: FieldPath) -> str:
    return f"{document.file}:{document.span(path, key=True).line + 1}"


def _address(spec: model.Spec, document: Document, seat: Seat) -> str:
    """An address that nobody wrote is counted from the first one."""
    path = seat.where("address")
    if path != seat.path:
        return _line(document, path)
    first = "subnet" if spec.network.wired.first is None else "first"
    return f"{_line(document, ('network', 'wired', first))} (`{first}` and the node's number)"
