"""The cache directory: scratch space and locks. What lies in it can be made again at any time.

Scratch directories hold an flock while their owner lives, so that sweeping is right even where
several PID namespaces (containers) share one cache.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import stat
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from piimage.disk.atomic import FULL, full_disk
from piimage.errors import PiimageError, ToolFailedError, WriteFailedError
from piimage.progress import Quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from piimage.progress import Progress

_NAME = re.compile(r"[a-z0-9][a-z0-9._+-]*")
_MAX_NAME = 120
_PLACE = "set `PIIMAGE_CACHE` to a directory of yours with some GiB free"
_ROOM = f"free some space, or {_PLACE}"


def cache_root() -> Path:
    """`$PIIMAGE_CACHE`, else `$XDG_CACHE_HOME/piimage`, else `~/.cache/piimage`.

    An empty variable is unset. A relative `$XDG_CACHE_HOME` is ignored, as the XDG Base Directory
    specification says.
    """
    own = os.environ.get("PIIMAGE_CACHE")
    if own:
        return Path(own).absolute()
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    parent = Path(xdg) if xdg.startswith("/") else Path.home() / ".cache"
    return parent / "piimage"


def check_name(name: str, what: str = "base") -> str:
    """Return `name` if it can name a cached thing, else raise `PiimageError`."""
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME:
        shown = name[:_MAX_NAME].encode("unicode_escape").decode()
        raise PiimageError(
            f"`{shown}` is not a name for a {what}: it starts with a lower-case letter or a digit, "
            "then come lower-case letters, digits and `.`, `_`, `+`, `-`",
        )
    return name


class Cache:
    """The directory `root` and what keeps its users apart; made (0700) when first used."""

    def __init__(self, root: Path | None = None, *, progress: Progress | None = None) -> None:
        self.root = root if root is not None else cache_root()
        self._progress: Progress = progress if progress is not None else Quiet()

    @property
    def variants(self) -> Path:
        """Where variants lie, one directory each."""
        return self.root / "variants"

    def variant_dir(self, variant_id: str) -> Path:
        """The directory of a variant, which need not exist: it comes by renaming a scratch one."""
        return self.variants / check_name(variant_id, "variant")

    def directory(self, name: str) -> Path:
        """A directory of the cache, made if absent, and private.

        Raises `PiimageError` if that cannot be. `root` itself may be a directory of the user's, so
        its mode is left alone once it exists.
        """
        path = self.root / name
        try:
            self.root.parent.mkdir(parents=True, exist_ok=True)
            self.root.mkdir(mode=0o700, exist_ok=True)
            path.mkdir(mode=0o700, exist_ok=True)
            found = path.stat()
            if os.geteuid() not in (0, found.st_uid):
                raise PiimageError(f"the cache `{path}` belongs to another user", hint=_PLACE)
            if stat.S_IMODE(found.st_mode) & 0o077:
                path.chmod(0o700)  # cached facts hold the image's /etc/shadow
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise PiimageError(
                f"cannot use the cache `{self.root}`: {reason}", hint=_PLACE
            ) from error
        return path

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A private empty directory in the cache's file system, gone when the block ends.

        What processes that died left behind goes first. A full disk inside the block becomes
        `WriteFailedError`.
        """
        parent = self.directory("scratch")
        path = parent / f"{os.getpid()}-{secrets.token_hex(4)}"
        with self.lock("scratch"):
            _sweep(parent)
            path.mkdir(mode=0o700)
            owner = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield path
        except WriteFailedError as error:
            inside = re.escape(str(path)) + "[^`]*"
            error.message = re.sub(inside, lambda _: str(self.root), error.message)
            if str(self.root) in error.message:  # another disk may be full as well
                error.hint = error.hint and _ROOM
            raise
        except (OSError, ToolFailedError) as error:
            if not _full(error):
                raise
            raise WriteFailedError(
                f"no room left in the cache `{self.root}`", hint=_ROOM
            ) from error
        finally:
            shutil.rmtree(path, ignore_errors=True)
            os.close(owner)

    @contextmanager
    def lock(self, name: str, *, waits: Callable[[str], None] | None = None) -> Iterator[None]:
        """Hold the lock `name` against other processes, telling the user, or `waits`, when that means waiting.

        Not reentrant: taking a lock twice in one process waits for ever.
        """
        with self._held(name, fcntl.LOCK_EX, waits):
            yield

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep another process from pruning what this one builds on; many may use the cache at once."""
        with self._held("use", fcntl.LOCK_SH):
            yield

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Wait until nobody uses the cache, and keep it so."""
        with self._held("use", fcntl.LOCK_EX):
            yield

    @staticmethod
    def used(path: Path) -> None:
        """Remember that a thing of the cache was of use now: its directory's time says so to `stock.prune`."""
        with suppress(OSError):
            os.utime(path)

    @contextmanager
    def _held(
        self, name: str, kind: int, waits: Callable[[str], None] | None = None
    ) -> Iterator[None]:
        path = self.directory("locks") / f"{check_name(name, 'lock')}.lock"
        try:
            held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise PiimageError(f"cannot use the lock `{path}`: {reason}", hint=_PLACE) from error
        try:
            try:
                fcntl.flock(held, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                words = f"waiting for another piimage to end (lock `{name}`)"
                if waits:
                    waits(words)
                with nullcontext() if waits else self._progress.step(words):
                    fcntl.flock(held, kind)
            yield
        finally:
            os.close(held)


def _full(error: OSError | ToolFailedError) -> bool:
    """Whether a full disk is behind this error of ours, or of a program that we ran."""
    if isinstance(error, OSError):
        return error.errno in FULL
    return full_disk(error.message)


def _sweep(parent: Path) -> None:
    """Remove scratch directories whose owner is gone: nobody holds their flock any more."""
    for path in parent.iterdir():
        try:
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(handle)
