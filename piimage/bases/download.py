"""A download that goes on where it broke off, in this run or in a later one.

What came lies under a scratch name, with a record of which file on the server it belongs to. A server is believed
as far as HTTP lets one check it (RFC 9110: 13.1.5 If-Range, 14.4 Content-Range); where it contradicts itself the
download starts over. Whether the bytes are right is for digests and signatures to say.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from contextlib import suppress
from threading import Event
from typing import TYPE_CHECKING, Any

from piimage.disk.atomic import require_space, write_bytes, write_errors
from piimage.disk.growing import BrokenOffError, Growth
from piimage.disk.sparse import write_all
from piimage.errors import FetchError, VerifyError
from piimage.web import BrokenOffError as ConnectionBrokenError
from piimage.web import answer

if TYPE_CHECKING:
    from pathlib import Path

    from piimage.progress import Task
    from piimage.web import Answer

#: Seconds before each new try; a byte that comes makes the first wait follow again.
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)
_BLOCK = 1 << 18
_OK, _PARTIAL = 200, 206
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
LATER = "what came is kept: the same command goes on from there; or give `--from FILE` or `--mirror DIR`"


class Download:
    """`url` into the file `part`, which may hold a beginning of it; `size` in bytes when it is known.

    `run` is for a thread of its own; `growth` tells others how far it is. The record lies at `part` with `.json`.
    """

    def __init__(self, url: str, part: Path, *, task: Task, size: int | None = None) -> None:
        self.url, self.part, self.growth = url, part, Growth()
        self.error: BaseException | None = None
        #: Whether bytes of several answers were put together.
        self.spliced = False
        self._task, self._size = task, size
        self._record = part.with_name(f"{part.name}.json")
        self._hasher = hashlib.sha256()
        self._at, self._validator, self._total = 0, "", size
        self._furthest, self._complete = 0, False
        self._stop = Event()

    @property
    def sha256(self) -> str:
        """Hex digest of what is there."""
        return self._hasher.hexdigest()

    def run(self) -> None:
        """Fetch it; what goes wrong is in `error`."""
        try:
            self._run()
        except BaseException as error:  # noqa: BLE001 -- raised in the thread that waits
            self.error = error
            self.growth.end(failed=True)
        else:
            self.growth.end()

    def stop(self) -> None:
        """End soon; what came stays."""
        self._stop.set()

    def _run(self) -> None:
        with write_errors(self.part):
            descriptor = os.open(
                self.part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
        try:
            self._resume(descriptor)
            waits = iter(WAITS)
            while not self._complete:
                before = self._furthest
                try:
                    self._fetch(descriptor)
                except ConnectionBrokenError as error:
                    # Only new bytes count: a server may begin again and again, and never get further.
                    if self._furthest > before:
                        waits = iter(WAITS)
                    wait = next(waits, None)
                    if wait is None:
                        raise
                    self._task.note(f"{error.message}; trying again")
                    if self._stop.wait(wait):
                        raise BrokenOffError("stopped") from error
            with write_errors(self.part):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _resume(self, descriptor: int) -> None:
        """Take up what an earlier run left, if it is the beginning of the same file."""
        record: dict[str, Any] = {}
        with suppress(OSError, ValueError, TypeError):
            record = dict(json.loads(self._record.read_bytes()))
        size = os.fstat(descriptor).st_size
        total = record.get("total")
        right = record.get("url") == self.url and record.get("validator") and size
        if not right or not (total is None or (isinstance(total, int) and size <= total)):
            self._start_over(descriptor)
            return
        self._validator, self._total = str(record["validator"]), total
        at = 0
        while at < size and (block := os.pread(descriptor, 1 << 20, at)):
            self._hasher.update(block)
            at += len(block)
        self._at = self._furthest = at
        self._complete = at == total
        self.spliced = True
        if total is not None:
            self._task.total(total)
        self._task.advance(at)
        self.growth.reach(at)

    def _start_over(self, descriptor: int) -> None:
        """Forget what came."""
        self._task.advance(-self._at)
        self._at, self._hasher, self.spliced = 0, hashlib.sha256(), False
        self._validator, self._total = "", self._size
        self.growth.start_over()
        with write_errors(self.part):
            self._record.unlink(missing_ok=True)
            os.ftruncate(descriptor, 0)

    def _fetch(self, descriptor: int) -> None:
        """One request, as far as it goes."""
        headers = {"Accept-Encoding": "identity"}
        if self._at and not self._validator:
            self._start_over(descriptor)
        if self._at:
            headers |= {"Range": f"bytes={self._at}-", "If-Range": self._validator}
        with answer(self.url, headers, hint=LATER) as got:
            if not self._at or got.status == _OK:
                self._begin(descriptor, got)
            elif not self._continues(got):
                self._start_over(descriptor)
                return
            else:
                self.spliced = True
            self._copy(descriptor, got)

    def _begin(self, descriptor: int, got: Answer) -> None:
        """The first byte comes first: either nothing was there, or the server has another file by now."""
        if got.status != _OK or got.headers.get("Content-Encoding", "identity") != "identity":
            raise FetchError(
                f"{self.url} was answered with what was not asked for: status {got.status}, "
                f"encoding {got.headers.get('Content-Encoding', 'none')}",
                hint=LATER,
            )
        if self._at:
            self._task.note("the server starts over")
        self._start_over(descriptor)
        total = got.headers.get("Content-Length", "")
        if total.isdecimal():
            self._total = int(total)
            if self._size not in {None, self._total}:
                raise VerifyError(
                    f"{self.url} has {self._total} bytes, {self._size} are expected",
                    hint="the server has another file under this name",
                )
            require_space(self.part.parent, self._total)
            self._task.total(self._total)
        etag = got.headers.get("ETag", "")
        # A weak one says nothing of single bytes (RFC 9110, 8.8.3).
        self._validator = (
            etag if etag and not etag.startswith("W/") else got.headers.get("Last-Modified", "")
        )
        record = {"url": self.url, "validator": self._validator, "total": self._total}
        write_bytes(self._record, json.dumps(record).encode(), mode=0o600)

    def _continues(self, got: Answer) -> bool:
        """Whether the answer is the rest of the very file whose beginning is here."""
        found = _RANGE.fullmatch(got.headers.get("Content-Range", ""))
        etag = got.headers.get("ETag")
        return (
            got.status == _PARTIAL
            and found is not None
            and int(found[1]) == self._at
            and (self._total is None or found[2] in {"*", str(self._total)})
            and (etag is None or self._validator in {etag, got.headers.get("Last-Modified")})
        )

    def _copy(self, descriptor: int, got: Answer) -> None:
        self._task.note("")
        while block := got.read(_BLOCK):
            if self._stop.is_set():
                raise BrokenOffError("stopped")
            with write_errors(self.part, self._total or 0):
                write_all(descriptor, self._at, memoryview(block))
            self._hasher.update(block)
            self._at += len(block)
            self._furthest = max(self._furthest, self._at)
            self._task.advance(len(block))
            self.growth.reach(self._at)
        # A server that closes without having said how much there is can be checked against what is known only.
        if self._total not in {None, self._at}:
            raise VerifyError(
                f"{self.url} has {self._at} bytes, {self._total} are expected",
                hint="the server has another file under this name",
            )
        self._complete = True
