"""Edits of a base's own text files: from the text that facts hold to the text wanted."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from piimage.delta import File

if TYPE_CHECKING:
    from piimage.facts import Facts


def encode(text: str) -> bytes:
    """Bytes of `text`; what was not UTF-8 in the image comes out as it went in."""
    return text.encode(errors="surrogateescape")


def rewritten(facts: Facts, path: str, text: str, *, mode: int = 0o644) -> File:
    """A file with this text and the owner and mode that `path` has now (else root's, `mode`)."""
    fact = facts.files.get(path)
    if fact is None or fact.kind != "file":
        return File(encode(text), mode=mode)
    return File(encode(text), mode=fact.mode, uid=fact.uid, gid=fact.gid)


def real_path(facts: Facts, path: str) -> str:
    """Where `path` leads when the image has a link there (one hop, as Debian uses it)."""
    fact = facts.files.get(path)
    if fact is None or fact.kind != "link" or not fact.target:
        return path
    # A link may go up further than there is anything: the root is above itself (path_resolution(7)).
    return "/" + posixpath.normpath(posixpath.join(posixpath.dirname(path), fact.target)).lstrip(
        "/"
    )


def set_variable(text: str, name: str, value: str) -> str:
    """`text` of assignments with `name="value"`: its active line replaced, else one added."""
    line = f'{name}="{value}"'
    pattern = re.compile(rf"^[ \t]*{re.escape(name)}=.*$", re.MULTILINE)
    if pattern.search(text):
        return pattern.sub(lambda _: line, text)
    return with_newline(text) + line + "\n"


def add_options(text: str, name: str, *options: str) -> str:
    """`text` of assignments with `options` among the words of the variable `name`, besides what it has."""
    found = re.search(rf"^[ \t]*{re.escape(name)}=[\"']?([^\"'\n]*)", text, re.MULTILINE)
    words = found[1].split() if found else []
    words += [option for option in options if option not in words]
    return set_variable(text, name, " ".join(words))


def with_newline(text: str) -> str:
    """`text` ending in a newline unless empty, so that an appended line stands alone."""
    return text if not text or text.endswith("\n") else text + "\n"


def comment_out(text: str, keywords: tuple[str, ...]) -> str:
    """`text` with every active line that starts with one of `keywords` behind a `#`."""
    names = "|".join(map(re.escape, keywords))
    return re.sub(rf"^(?=[ \t]*(?:{names})\b)", "#", text, flags=re.MULTILINE)
