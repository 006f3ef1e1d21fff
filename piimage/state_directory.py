"""A directory of secrets: appears whole or not at all, and is its owner's alone."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from piimage.disk.atomic import write_errors
from piimage.errors import StateError, WriteFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator


class ThereAlreadyError(StateError):
    """A state directory that may not be made because there is one."""


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """An empty private directory that becomes `path` when the block ends without an exception."""
    there = ThereAlreadyError(
        f"there is a state directory `{path}` already",
        hint="move it away first; nothing was changed",
    )
    if path.exists():
        raise there
    with write_errors(path):
        draft = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    try:
        yield draft
        with write_errors(path):
            try:
                draft.rename(path)
            except OSError as error:
                raise (there if path.exists() else error) from error
    except WriteFailedError as error:
        error.message = error.message.replace(str(draft), str(path))
        raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def check_private(path: Path) -> None:
    """Refuse a state that others can read, as ssh refuses such a key."""
    if not path.is_dir():
        raise StateError(f"`{path}` is in the place of the state directory, and is not one")
    if path.stat().st_mode & 0o077:
        raise StateError(
            f"the state directory `{path}` can be read by others",
            hint=f"`chmod 700 {path}`; consider its keys known if others use this machine",
        )
