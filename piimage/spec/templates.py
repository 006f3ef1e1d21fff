"""Templates of overlays: jinja2 in a sandbox, where a name that does not exist is an error.

A variant holds no node's identity, so a template of a variant sees what all nodes of a role share; one that is
`per_node` also sees its node and the roster. Neither sees a secret.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from piimage.report import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jinja2.sandbox import ImmutableSandboxedEnvironment

#: What a template of a variant sees, and what one for a node sees besides.
SHARED, OWN = ("cluster", "role", "os"), ("node", "nodes")
_PER_NODE = "say `per_node: true` of it in overlay.yaml: a variant is of several nodes"


class TemplateFailedError(ValueError):
    """A template that cannot be rendered: what is wrong, and the line where that is known."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.message, self.line = message, line


def render(content: bytes, context: Mapping[str, Any]) -> bytes:
    """The template's text with `context`; raises `TemplateFailedError`."""
    from jinja2 import TemplateError  # noqa: PLC0415 -- only where there are templates

    text = _text(content)
    try:
        return _environment().from_string(text).render(context).encode()
    except TemplateError as error:
        message = f"the template cannot be rendered: {error.message or 'unknown error'}"
        raise TemplateFailedError(message, _line(error)) from error
    except Exception as error:  # whatever an expression in it raises
        reason = f"{type(error).__name__}: {error}"
        raise TemplateFailedError(f"the template failed: {reason}", _line(error)) from error


def variables(content: bytes) -> tuple[str, ...]:
    """Names that the template takes from its context, sorted; raises `TemplateFailedError`."""
    from jinja2 import TemplateSyntaxError, meta  # noqa: PLC0415 -- only where there are templates

    text = _text(content)
    try:
        tree = _environment().parse(text)
    except TemplateSyntaxError as error:
        message = f"the template is not valid: {error.message}"
        raise TemplateFailedError(message, error.lineno) from error
    return tuple(sorted(meta.find_undeclared_variables(tree)))


def problems(content: bytes, *, per_node: bool) -> Iterator[tuple[int | None, str, str | None]]:
    """Line, message and hint of all that can be seen to be wrong without rendering."""
    try:
        names = variables(content)
    except TemplateFailedError as error:
        yield error.line, error.message, None
        return
    known = (*SHARED, *OWN) if per_node else SHARED
    for name in names:
        if name not in known:
            hint = _PER_NODE if name in OWN else "there are " + ", ".join(f"`{k}`" for k in known)
            yield (
                _first(content, name),
                f"the template uses {shown(name)}, which is not there",
                hint,
            )


def _first(content: bytes, name: str) -> int | None:
    """The first line that has the name, as well as one can tell."""
    lines = content.decode(errors="replace").splitlines()
    return next((number for number, line in enumerate(lines, 1) if name in line), None)


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise TemplateFailedError("the template is not UTF-8") from None


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    from jinja2 import StrictUndefined  # noqa: PLC0415 -- only where there are templates
    from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415 -- same

    return ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )


def _line(error: BaseException) -> int | None:
    """The line of the template where the error came from: jinja2 puts it into the trace."""
    line: int | None = getattr(error, "lineno", None)
    trace = error.__traceback__
    while trace is not None and getattr(error, "lineno", None) is None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
