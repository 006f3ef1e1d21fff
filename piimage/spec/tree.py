"""Build plain values from a YAML parser's events, with the place of every key and value."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from piimage.report import shown
from piimage.spec.masking import is_secret
from piimage.spec.place import FieldPath, Span

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_VALUES = 20_000
MAX_DEPTH = 32
#: Python refuses to convert numbers of more than 4,300 digits.
_MAX_DIGITS = 1000

_INT = re.compile(r"[-+]?[0-9]+\Z")
_BASED = re.compile(r"0o[0-7]{1,18}\Z|0x[0-9a-fA-F]{1,15}\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?\Z")
_ZERO_LED = re.compile(r"[-+]?0[0-9_]+\Z")
#: YAML 1.2 core schema; `.inf` and `.nan` stay text, since no field wants them.
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "map", "seq"))
#: Controls but tab and newline, line and paragraph separators (which some programs take for the end
#: of a line), lone surrogates; only escapes such as `"\0"` bring them in.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Problem:
    """A mistake that leaves the rest readable; `path` has no usable value if `broken`."""

    path: FieldPath
    span: Span
    message: str
    hint: str
    code: str
    broken: bool = True


class TreeError(Exception):
    """The document cannot be read to its end."""

    def __init__(self, message: str, span: Span, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.span, self.hint = message, span, hint


@dataclass(slots=True)
class _Frame:
    """A mapping or list under construction."""

    path: FieldPath
    value: dict[str, Any] | list[Any]
    start: Span
    anchor: str | None
    key: str | None = None

    def child(self) -> FieldPath:
        if isinstance(self.value, list):
            return (*self.path, len(self.value))
        return (*self.path, self.key or "")


class Builder:
    """Eats parser events; afterwards `root` holds the values and the other fields their places."""

    def __init__(self) -> None:
        self.root: Any = None
        self.keys: dict[FieldPath, Span] = {}
        self.values: dict[FieldPath, Span] = {}
        self.raw: dict[FieldPath, str] = {}
        self.secrets: list[Span] = []
        self.problems: list[Problem] = []
        self._stack: list[_Frame] = []
        self._anchors: dict[str, tuple[FieldPath, Any]] = {}
        self._count = 0
        self._documents = 0

    def feed(self, events: Iterable[Any]) -> None:
        """Read all events; raises `TreeError`, and whatever the parser raises."""
        handlers = {
            "DocumentStartEvent": self._document,
            "ScalarEvent": self._scalar,
            "AliasEvent": self._alias,
            "MappingStartEvent": lambda event: self._open(event, {}),
            "SequenceStartEvent": lambda event: self._open(event, []),
            "MappingEndEvent": self._close,
            "SequenceEndEvent": self._close,
        }
        for event in events:
            handler = handlers.get(type(event).__name__)
            if handler is not None:
                handler(event)

    def _document(self, event: Any) -> None:  # noqa: ANN401 -- the parser's events are untyped
        self._documents += 1
        if self._documents > 1:
            hint = "keep one document per file, without `---` between"
            raise TreeError("a second document starts here", _span(event), hint)
        if getattr(event, "version", None) not in (None, (1, 2)) or getattr(event, "tags", None):
            hint = "remove the line; the file is read as YAML 1.2"
            raise TreeError("directives (`%...`) are not used here", _span(event), hint)

    def _scalar(self, event: Any) -> None:  # noqa: ANN401 -- the parser's events are untyped
        self._room(event)
        frame = self._stack[-1] if self._stack else None
        if frame is not None and isinstance(frame.value, dict) and frame.key is None:
            self._key(frame, event)
            return
        path, span = frame.child() if frame else (), _span(event)
        plain = bool(event.implicit[0]) and event.tag is None
        value: Any = _resolve(event.value) if plain else event.value
        if not isinstance(value, str):
            self.raw[path] = event.value
        if is_secret(path, value):
            self.secrets.append(span)
        self._check(path, span, event, plain=plain)
        self._put(path, value, span, event.anchor)

    def _key(self, frame: _Frame, event: Any) -> None:  # noqa: ANN401 -- the parser's events are untyped
        key, span = str(event.value), _span(event)
        path = (*frame.path, key)
        frame.key = key
        first = self.keys.get(path)
        if key == "<<" and event.implicit[0]:
            hint = "write the keys out, or put them in a profile"
            self._problem(path, span, "merge keys (`<<`) are not used here", hint, "merge-key")
        elif first is not None and key in frame.value:
            hint = f"it stands on line {first.line + 1} already; keep one"
            message = f"{shown(key)} is given twice"
            self._problem(path, span, message, hint, "duplicate-key", broken=False)
        elif _CONTROL.search(key):
            self._control(path, span, key)
        self.keys[path] = span

    def _check(self, path: FieldPath, span: Span, event: Any, *, plain: bool) -> None:  # noqa: ANN401 -- the parser's events are untyped
        text = event.value
        if event.tag is not None and str(event.tag) not in _TAGS:
            self._problem(path, span, *_NO_TAGS)
        elif plain and _ZERO_LED.match(text):
            word = "this" if is_secret(path) else shown(text)
            message = f"{word} is a number with a leading zero, which YAML 1.1 reads as octal"
            hint = "put it in quotes if it is a mode or text, else drop the zero"
            self._problem(path, span, message, hint, "leading-zero")
        elif _CONTROL.search(text):
            self._control(path, span, text)

    def _control(self, path: FieldPath, span: Span, text: str) -> None:
        found = _CONTROL.search(text)
        name = f"U+{ord(found.group()):04X}" if found else "one"
        message = f"the text holds an unprintable character, {name}"
        self._problem(path, span, message, "remove the escape", "control-character")

    def _alias(self, event: Any) -> None:  # noqa: ANN401 -- the parser's events are untyped
        span = _span(event)
        frame = self._stack[-1] if self._stack else None
        if frame is not None and isinstance(frame.value, dict) and frame.key is None:
            raise TreeError("an alias cannot be a key", span, "write the key out")
        found = self._anchors.get(str(event.anchor))
        if found is None:
            message = f"{shown('*' + str(event.anchor))} names no anchor that is complete above"
            raise TreeError(message, span, "put text that starts with `*` in quotes")
        path = frame.child() if frame else ()
        value = self._copy(found[0], found[1], path, event)
        self._put(path, value, self.values[found[0]], None)

    def _copy(self, old: FieldPath, value: Any, new: FieldPath, event: Any) -> Any:  # noqa: ANN401 -- plain YAML values
        """A copy of an anchored value with its places, counted like values written out."""
        self._room(event)
        if old in self.keys and len(old) > len(new):
            self.keys.setdefault(new, self.keys[old])
        if old in self.values:
            self.values[new] = self.values[old]
        if old in self.raw:
            self.raw[new] = self.raw[old]
        if isinstance(value, dict):
            return {k: self._copy((*old, k), v, (*new, k), event) for k, v in value.items()}
        if isinstance(value, list):
            return [self._copy((*old, i), v, (*new, i), event) for i, v in enumerate(value)]
        if is_secret(new, value):
            self.secrets.append(self.values[old])
        return value

    def _open(self, event: Any, value: dict[str, Any] | list[Any]) -> None:  # noqa: ANN401 -- the parser's events are untyped
        self._room(event)
        frame = self._stack[-1] if self._stack else None
        if frame is not None and isinstance(frame.value, dict) and frame.key is None:
            raise TreeError("a key must be text", _span(event), "write `key: value`")
        if len(self._stack) >= MAX_DEPTH:
            raise TreeError(f"nested deeper than {MAX_DEPTH} levels", _span(event))
        path = frame.child() if frame else ()
        if event.tag is not None and str(event.tag) not in _TAGS:
            self._problem(path, _span(event), *_NO_TAGS)
        self._stack.append(_Frame(path, value, _span(event), event.anchor))

    def _close(self, event: Any) -> None:  # noqa: ANN401 -- the parser's events are untyped
        frame = self._stack.pop()
        end = _span(event)
        span = Span(frame.start.line, frame.start.column, end.end_line, end.end_column)
        self._put(frame.path, frame.value, span, frame.anchor)

    def _put(self, path: FieldPath, value: Any, span: Span, anchor: str | None) -> None:  # noqa: ANN401 -- plain YAML values
        self.values[path] = span
        if anchor:
            self._anchors[str(anchor)] = (path, value)
        if not self._stack:
            self.root = value
            return
        frame = self._stack[-1]
        if isinstance(frame.value, list):
            frame.value.append(value)
        else:
            frame.value[frame.key or ""] = value
            frame.key = None

    def _room(self, event: Any) -> None:  # noqa: ANN401 -- the parser's events are untyped
        self._count += 1
        if self._count > MAX_VALUES:
            message = f"the file holds more than {MAX_VALUES:,} values, aliases written out"
            raise TreeError(message, _span(event), "use fewer aliases")

    def _problem(
        self,
        path: FieldPath,
        span: Span,
        message: str,
        hint: str,
        code: str,
        *,
        broken: bool = True,
    ) -> None:
        self.problems.append(Problem(path, span, message, hint, code, broken))


_NO_TAGS = ("tags (`!name`) are not used here", "remove the tag", "tag")


def _span(event: Any) -> Span:  # noqa: ANN401 -- the parser's events are untyped
    start, end = event.start_mark, event.end_mark
    return Span(start.line, start.column, end.line, end.column)


def _resolve(text: str) -> Any:  # noqa: ANN401 -- plain YAML values
    """A plain scalar's value by the core schema of YAML 1.2."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > _MAX_DIGITS or text[0] not in "+-.0123456789":
        return text
    if _INT.match(text):
        return int(text)
    if _BASED.match(text):
        return int(text, 0)
    return float(text) if _FLOAT.match(text) else text
