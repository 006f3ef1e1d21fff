"""Decompression of what can only be read onward, such as a download that is still under way."""

from __future__ import annotations

import gzip
import tempfile
from contextlib import ExitStack
from threading import Thread
from typing import IO, TYPE_CHECKING

from piimage.disk.streams import Child, Xz, guarded
from piimage.errors import ImageError
from piimage.run import PIPE, process

if TYPE_CHECKING:
    import io

    from piimage.disk.streams import Readable

_CHUNK = 1 << 20


def sequential(kind: str, file: Readable, name: str, stack: ExitStack) -> io.RawIOBase:
    """The decompressed content of what can only be read onward; `kind` is `raw`, `xz`, `gz` or `zst`.

    Reading raises as `open_image` does, and what `file` raises. `stack` ends what was begun for it.
    """
    if kind == "xz":
        return guarded(Xz(file).read, name)
    if kind == "gz":
        return guarded(stack.enter_context(gzip.GzipFile(fileobj=file)).read, name)  # type: ignore[call-overload] # it only reads
    if kind == "zst":
        return guarded(_fed_zstd(file, name, stack).read, name)
    return guarded(file.read, name)


class _Pump(Thread):
    """Feeds a tool; what goes wrong with reading is raised where the tool's output is read."""

    def __init__(self, file: Readable, sink: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self._file, self._sink = file, sink
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            with self._sink:
                while block := self._file.read(_CHUNK):
                    self._sink.write(block)
        except BrokenPipeError:
            pass  # the tool ended, and says why
        except Exception as error:  # noqa: BLE001 -- told in the other thread
            self.error = error


class _Fed:
    """Output of a tool that is fed by a thread."""

    def __init__(self, child: Child, pump: _Pump) -> None:
        self._child, self._pump = child, pump

    def read(self, size: int) -> bytes:
        try:
            data = self._child.read(size)
        except ImageError:
            self._pump.join()
            if self._pump.error:
                raise self._pump.error from None
            raise
        if not data:
            self._pump.join()
            if self._pump.error:
                raise self._pump.error
        return data


def _fed_zstd(file: Readable, name: str, stack: ExitStack) -> _Fed:
    words = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 -- the stack closes it
    waits = stack.enter_context(ExitStack())  # for the pump, once the tool is gone
    child = stack.enter_context(process(["zstd", "-dcq"], stdin=PIPE, stderr=words))
    assert child.stdin is not None  # noqa: S101 -- `process` made both pipes
    assert child.stdout is not None  # noqa: S101 -- see above
    pump = _Pump(file, child.stdin)
    pump.start()
    waits.callback(pump.join)
    return _Fed(Child(child.stdout, child.wait, words, name), pump)
