"""The directory of a state as such: private, and there whole or not at all."""

from __future__ import annotations

import fcntl
import os
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
def draft(path: Path) -> Iterator[Path]:
    """An empty private directory that becomes `path` when the block ends without an exception."""
    there = ThereAlreadyError(
        f"there is a state directory `{path}` already",
        hint="move it away first; nothing was changed",
    )
    if path.exists():
        raise there
    with write_errors(path):
        made = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    try:
        yield made
        with write_errors(path):
            try:
                made.rename(path)
            except OSError as error:
                raise (there if path.exists() else error) from error
    except WriteFailedError as error:
        error.message = error.message.replace(str(made), str(path))
        raise
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """The state `path` for this process alone: two builds at once must not make two keys for one node."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def check_private(path: Path) -> None:
    """Refuse a state that others can read, as ssh refuses such a key."""
    if not path.is_dir():
        raise StateError(f"`{path}` is in the place of the state directory, and is not one")
    if path.stat().st_mode & 0o077:
        raise StateError(
            f"the state directory `{path}` can be read by others",
            hint=f"`chmod 700 {path}`; consider its keys known if others use this machine",
        )
