"""Our own sentence for each error that pydantic reports; its wording is not for users."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

from piimage.report import shown
from piimage.spec import model
from piimage.spec.masking import is_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from piimage.spec.place import FieldPath

#: Where each model stands in cluster.yaml; `*` is any index or role name.
PLACES: dict[FieldPath, type[model.Model]] = {
    (): model.Spec,
    ("users", "*"): model.User,
    ("root",): model.Root,
    ("network",): model.Network,
    ("network", "wired"): model.Wired,
    ("network", "wifi"): model.Wifi,
    ("time",): model.Time,
    ("ssh",): model.Ssh,
    ("shares", "*"): model.Share,
    ("mpi",): model.Mpi,
    ("blinkt",): model.Blinkt,
    ("roles", "*"): model.Role,
    ("nodes",): model.NodeCount,
    ("nodes", "*"): model.NodeEntry,
}
#: What people call things elsewhere.
_SYNONYMS = {
    "hostname": "name",
    "ip": "address",
    "ipv4": "address",
    "ssh_authorized_keys": "ssh_keys",
    "authorized_keys": "ssh_keys",
    "key": "ssh_keys",
    "keys": "ssh_keys",
    "passphrase": "psk",
    "password": "psk",
    "cidr": "subnet",
    "network": "subnet",
    "tz": "timezone",
    "image": "base",
    "ntp": "time",
    "nfs": "shares",
    "model": "board",
    "fullname": "gecos",
    "amount": "count",
}
_MISSING_HINTS = {
    "version": "add `version: 1` at the top",
    "country": "radio rules depend on it; add for example `country: IT`",
    "uid": "pin it, so that it is the same on every node; 1000 is usual for the first user",
    "subnet": "for example `subnet: 10.1.10.0/24`",
    "psk": "`piimage` joins WPA networks only; write `psk: env:PI_WIFI_PSK`",
    "nodes": "add `nodes: {count: 5}`, or a list of nodes",
    "users": "add a list with at least one user",
    "network": "add `network: {wired: {subnet: 10.1.10.0/24}}`",
    "wired": "add `wired: {subnet: 10.1.10.0/24}`",
    "name": "add `name:`",
}
_LITERAL_HINTS = {
    "sudo": "`nopasswd` for all without a password, `password` for all with one, `none`",
}
_FEW_KEYS = 14
_KINDS = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "`true` or `false`",
    "list_type": "a list",
    "dict_type": "a mapping of `key: value`",
    "model_type": "a mapping of `key: value`",
    "union_tag_not_found": "`{count: ...}` or a list",
}


class Mistake(NamedTuple):
    """A diagnostic without its place: `path` in the file, the words, whether its key is meant."""

    path: FieldPath
    message: str
    hint: str | None
    code: str
    key: bool = False


def without_tags(location: tuple[int | str, ...]) -> FieldPath:
    """A pydantic location as a field path."""
    return tuple(part for part in location if part not in (model.COUNT_TAG, model.LIST_TAG))


def explain(error: Mapping[str, Any], root: type[model.Model] = model.Spec) -> Mistake:
    """The mistake behind one entry of `ValidationError.errors()`."""
    path = without_tags(error["loc"])
    kind, context = str(error["type"]), error.get("ctx") or {}
    if path and path[-1] == "[key]":
        return Mistake(
            path[:-1], context.get("message", "not a name"), context.get("hint"), kind, True
        )
    if "message" in context:
        where, key = (*path, *context["at"]), kind == "unknown-key"
        return Mistake(where, context["message"], context["hint"], kind, key)
    explainer = _EXPLAINERS.get(kind)
    if explainer is not None:
        return explainer(path, error.get("input"), context, root)
    if kind in _KINDS:
        return _wrong_kind(path, error.get("input"), kind)
    return Mistake(path, f"{_subject(path)} is not valid", None, kind)


def place(path: FieldPath, root: type[model.Model] = model.Spec) -> type[model.Model] | None:
    """The model whose fields stand below `path`."""
    if root is not model.Spec:
        inside = len(path) == 2 and root.INSIDE.get(str(path[0]))  # noqa: PLR2004 -- field and key
        return root if not path else inside or None
    for known, found in PLACES.items():
        if len(known) == len(path) and all(
            want in ("*", part) and (want != "*" or isinstance(part, int) or path[0] == "roles")
            for want, part in zip(known, path, strict=True)
        ):
            return found
    return None


def _subject(path: FieldPath) -> str:
    if not path:
        return "the file"
    if isinstance(path[-1], int):
        return f"an entry of `{path[-2]}`" if len(path) > 1 else "an entry"
    return shown(path[-1])


def _missing(path: FieldPath, _value: object, _context: object, root: type[model.Model]) -> Mistake:
    found = place(path[:-1], root)
    what = found.WHAT if found else "this"
    name = str(path[-1])
    if path == ("network", "wifi", "country"):
        message = "Wi-Fi without `country`: the radio stays blocked without one"
    else:
        message = f"{what} needs {shown(name)}, which is missing"
    return Mistake(path[:-1], message, _MISSING_HINTS.get(name), "missing", True)


def _unknown(path: FieldPath, _value: object, _context: object, root: type[model.Model]) -> Mistake:
    found = place(path[:-1], root)
    what = found.WHAT if found else "this"
    allowed = [*found.model_fields] if found else []
    hint = _suggest(path, allowed, root)
    message = f"{shown(path[-1])} is not a field of {what}"
    return Mistake(path, message, hint, "unknown-key", True)


def intended(path: FieldPath, root: type[model.Model] = model.Spec) -> str | None:
    """The field that the unknown key at the end of `path` was probably meant to be."""
    found = place(path[:-1], root)
    allowed = [*found.model_fields] if found else []
    key = str(path[-1]).lower().replace("-", "_")
    if key in allowed:
        return key
    close = get_close_matches(key, allowed, 1)
    if close:
        return close[0]
    return _SYNONYMS[key] if _SYNONYMS.get(key) in allowed else None


def _suggest(path: FieldPath, allowed: list[str], root: type[model.Model]) -> str | None:
    """A field that was probably meant, or where such a field stands, or all fields if few."""
    meant = intended(path, root)
    if meant:
        return f"did you mean {shown(meant)}?"
    key = str(path[-1]).lower().replace("-", "_")
    if root is model.Spec:
        for where, other in PLACES.items():
            if key in other.model_fields and where and where != ("nodes",):
                text = ".".join(map(str, where)).replace(".*", "[]")
                return f"it belongs under {shown(text)}"
        if key in model.Spec.model_fields:
            return "it belongs at the top level"
    if len(allowed) <= _FEW_KEYS:
        return "allowed are " + ", ".join(f"`{name}`" for name in allowed)
    return "`piimage schema` lists all fields"


def _literal(path: FieldPath, value: object, context: Any, _root: object) -> Mistake:  # noqa: ANN401 -- pydantic's context
    allowed = re.findall(r"'([^']*)'", context["expected"]) or [context["expected"]]
    choices = " or ".join(", ".join(f"`{name}`" for name in allowed).rsplit(", ", 1))
    hint = _LITERAL_HINTS.get(str(path[-1]))
    close = get_close_matches(str(value).lower(), allowed, 1)
    if close and isinstance(value, str):
        hint = f"did you mean {shown(close[0])}?"
    word = str(value).lower() if isinstance(value, bool) else value
    got = "" if value is None or isinstance(value, (dict, list)) else f", not {shown(word)}"
    return Mistake(path, f"{_subject(path)} must be {choices}{got}", hint, "choice")


def _wrong_kind(path: FieldPath, value: object, kind: str) -> Mistake:
    want, subject = _KINDS[kind], _subject(path)
    if value is None:
        return Mistake(
            path, f"{subject} is empty", f"give {want}, or remove the key", "empty", True
        )
    message = f"{subject} must be {want}, but this is {_name(value)}"
    return Mistake(path, message, _kind_hint(path, value, kind), "type")


def _name(value: object) -> str:
    if isinstance(value, float):
        return "a number with a fraction" if value % 1 else "a number with a point or exponent"
    names = {bool: "a truth value", int: "a number", str: "text", list: "a list"}
    return names.get(type(value), "a mapping")


def _kind_hint(path: FieldPath, value: object, kind: str) -> str | None:
    if kind == "string_type" and isinstance(value, (bool, int, float)):
        return "put it in quotes"
    if kind == "union_tag_not_found" and type(value) is int:
        return f"did you mean {shown(f'{{count: {value}}}')}?"
    if isinstance(value, dict):
        return "start each entry with `- `" if kind == "list_type" else None
    if not isinstance(value, str):
        return None
    hints = {
        "bool_type": _bool_hint(value),
        "int_type": "remove the quotes" if re.fullmatch("[0-9]+", value) else None,
        "list_type": None if is_secret(path, value) else f"did you mean {shown(f'[{value}]')}?",
        "model_type": "a space belongs behind each `:`" if ":" in value else None,
    }
    return hints.get(kind)


def _bool_hint(value: str) -> str | None:
    words = {"yes": "true", "on": "true", "true": "true", "no": "false", "off": "false"}
    word = {**words, "false": "false"}.get(value.lower())
    return f"write `{word}` without quotes" if word else None


def _range(path: FieldPath, value: object, context: Any, _root: object) -> Mistake:  # noqa: ANN401 -- pydantic's context
    low, high = context.get("ge"), context.get("le")
    bound = f"at least {low}" if low is not None else f"at most {high}"
    hint = None
    if path[-1] in ("uid", "gid"):
        hint = "0 is root's" if value == 0 else "users have 1000 to 59999; higher ones are reserved"
    return Mistake(path, f"{_subject(path)} must be {bound}, but is {shown(value)}", hint, "range")


def _length(path: FieldPath, _value: object, context: Any, _root: object) -> Mistake:  # noqa: ANN401 -- pydantic's context
    if "min_length" in context:
        return Mistake(
            path, f"{_subject(path)} is an empty list", "give at least one entry", "empty"
        )
    message = f"{_subject(path)} has more than {context['max_length']} entries"
    return Mistake(path, message, None, "length")


_EXPLAINERS: dict[str, Callable[[FieldPath, object, Any, type[model.Model]], Mistake]] = {
    "missing": _missing,
    "extra_forbidden": _unknown,
    "literal_error": _literal,
    "greater_than_equal": _range,
    "less_than_equal": _range,
    "too_short": _length,
    "too_long": _length,
}
