"""Read YAML text into plain values that know where they stand. The only module that reads what users write in YAML.

What is read is a safe subset of YAML 1.2 (core schema): one document, a mapping at the top, text
keys. Refused, each with one error: files over 1 MiB, more than 20,000 values (aliases counted as
often as they are used), nesting over 32 levels, tags of one's own, merge keys, text that is not
UTF-8. Numbers with a leading zero are refused because YAML 1.1 reads them as octal and YAML 1.2 as
decimal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from piimage.errors import ConfigError
from piimage.report import Diagnostic, Severity, dotted
from piimage.spec.masking import mask
from piimage.spec.place import FieldPath, Span
from piimage.spec.syntax import sentence
from piimage.spec.tree import Builder, TreeError

if TYPE_CHECKING:
    from pathlib import Path

    from piimage.spec.tree import Problem

MAX_BYTES = 1 << 20
#: libyaml is twenty times as fast as a parser in Python. Only its events are used: what a scalar
#: means
#: is decided in `tree`, by YAML 1.2 and not by the YAML 1.1 of PyYAML's constructors.
_PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BREAK = re.compile(r"\r\n|\n|\r")
#: Characters that YAML refuses, and breaks that only some tools take for a line's end.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class Document:
    """A file as plain values (`dict`, `list`, `str`, `int`, `float`, `bool`, None) with positions.

    `file` is the path as the user gave it. `keys` and `values` map field paths to spans; `raw` maps
    paths of plain scalars that are not text to what is written in the file.
    """

    file: str
    data: dict[str, Any]
    lines: tuple[str, ...] = ()
    keys: dict[FieldPath, Span] = field(default_factory=dict)
    values: dict[FieldPath, Span] = field(default_factory=dict)
    raw: dict[FieldPath, str] = field(default_factory=dict)
    secrets: tuple[Span, ...] = ()
    problems: tuple[Diagnostic, ...] = ()
    broken: frozenset[FieldPath] = frozenset()

    def span(self, path: FieldPath, *, key: bool = False) -> Span:
        """The place of a value or of its key; of the nearest parent when it is not in the file."""
        while path:
            found = (self.keys.get(path) if key else None) or self.values.get(path)
            if found is not None:
                return found
            path, key = path[:-1], True
        return self.values.get((), Span(0, 0, 0, 0))

    def diagnostic(
        self,
        severity: Severity,
        path: FieldPath,
        message: str,
        *,
        hint: str | None = None,
        code: str = "",
        key: bool = False,
    ) -> Diagnostic:
        """A finding about the value at `path` (or its key), with its line, secrets masked."""
        return self.at(severity, self.span(path, key=key), message, path=path, hint=hint, code=code)

    def at(
        self,
        severity: Severity,
        span: Span,
        message: str,
        *,
        path: FieldPath = (),
        hint: str | None = None,
        code: str = "",
    ) -> Diagnostic:
        """A finding about a place in the file."""
        text = self.lines[span.line] if span.line < len(self.lines) else ""
        end = span.end_column if span.end_line == span.line else len(text.rstrip())
        return Diagnostic(
            severity=severity,
            message=message,
            file=self.file,
            line=span.line + 1,
            column=span.column + 1,
            end_column=max(end, span.column + 1) + 1,
            hint=hint,
            path=dotted(path),
            code=code,
            source=mask(text, span.line, self.secrets),
        )


def read(path: Path) -> Document:
    """The document at `path`.

    Raises `ConfigError` when the file cannot be read or is not YAML. Mistakes that leave the rest
    readable (a key written twice) are in `problems` instead, to be told with all others.
    """
    return parse(_text(path), str(path))


def parse(text: str, file: str) -> Document:
    """The document in `text`; like `read`."""
    lines = tuple(_BREAK.split(text))
    blank = Document(file, {}, lines)
    bad = _UNPRINTABLE.search(text)
    if bad is not None:
        before = _BREAK.split(text[: bad.start()])
        at = Span(len(before) - 1, len(before[-1]), len(before) - 1, len(before[-1]) + 1)
        message = f"the file holds the unprintable character U+{ord(bad.group()):04X}"
        raise _fatal(blank, at, message, hint="remove it; cluster.yaml is plain UTF-8 text")
    builder = Builder()
    try:
        builder.feed(yaml.parse(text, _PARSER))
    except TreeError as error:
        raise _fatal(blank, error.span, error.message, hint=error.hint) from None
    except yaml.MarkedYAMLError as error:
        message, hint, line, column = sentence(error, text)
        raise _fatal(blank, Span(line, column, line, column + 1), message, hint=hint) from None
    return _document(file, lines, builder)


def _document(file: str, lines: tuple[str, ...], builder: Builder) -> Document:
    blank = Document(file, {}, lines, secrets=tuple(builder.secrets))
    data = builder.root
    if not isinstance(data, dict):
        if data is None:
            raise _fatal(blank, Span(0, 0, 0, 1), "the file is empty", hint=_START)
        kind = "list" if isinstance(data, list) else "single value"
        message = f"a {kind} stands at the top, but `key: value` lines are wanted"
        raise _fatal(blank, builder.values[()], message, hint=_START)
    found = [_problem(blank, problem) for problem in builder.problems]
    return Document(
        file=file,
        data=data,
        lines=lines,
        keys=builder.keys,
        values=builder.values,
        raw=builder.raw,
        secrets=tuple(builder.secrets),
        problems=tuple(found),
        broken=frozenset(p.path for p in builder.problems if p.broken),
    )


_START = "start with `version: 1`; `piimage schema` lists all fields"


def _problem(document: Document, problem: Problem) -> Diagnostic:
    return document.at(
        Severity.ERROR,
        problem.span,
        problem.message,
        path=problem.path,
        hint=problem.hint,
        code=problem.code,
    )


def _fatal(document: Document, span: Span, message: str, *, hint: str | None) -> ConfigError:
    found = document.at(Severity.ERROR, span, message, hint=hint, code="yaml")
    return ConfigError(f"{document.file} is not a valid file", diagnostics=[found])


def _text(path: Path) -> str:
    """The file's text without a byte order mark; never more than `MAX_BYTES` are read."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise _unreadable(
            path, "there is no such file", "give the path of yours, or write one: `piimage init`"
        ) from None
    except IsADirectoryError:
        hint = f"give the file in it: `{path / 'cluster.yaml'}`"
        raise _unreadable(path, "this is a directory", hint) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the name is not valid"
        raise _unreadable(path, f"the file cannot be read: {reason.lower()}", None) from None
    if len(data) > MAX_BYTES:
        message = "the file is larger than 1 MiB"
        raise _unreadable(path, message, "a cluster.yaml of 1,000 nodes has about 100 KiB")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _unreadable(path, "the file is UTF-16", "save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, data, error.start) from None


def _not_utf8(path: Path, data: bytes, start: int) -> ConfigError:
    before = _BREAK.split(data[:start].decode("utf-8-sig"))
    line, column = len(before) - 1, len(before[-1])
    lines = tuple(_BREAK.split(data.decode("utf-8-sig", errors="replace")))
    message = f"the file is not UTF-8: it holds the byte 0x{data[start]:02x} here"
    blank = Document(str(path), {}, lines)
    at = Span(line, column, line, column + 1)
    return _fatal(blank, at, message, hint="save the file as UTF-8")


def _unreadable(path: Path, message: str, hint: str | None) -> ConfigError:
    found = Diagnostic(
        severity=Severity.ERROR, message=message, file=str(path), hint=hint, code="unreadable"
    )
    return ConfigError(f"{path} cannot be used", diagnostics=[found])
