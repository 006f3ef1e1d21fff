"""A conversation with the probe on a node: one JSON object a line, there and back."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .reach import Said, command, kill_group, text_of

if TYPE_CHECKING:
    from .roster import Node

_PROBE = Path(__file__).with_name("probe.py")
#: Exchanges for the clock; the quickest of them counts.
_EXCHANGES = 5


class Silent(Exception):  # noqa: N818 -- reads as what happened
    """The node did not answer; the message says why, in a few words."""


class Dialogue:
    """A probe that runs on `node` until the dialogue ends; `limit` seconds for all of it."""

    def __init__(self, node: Node, head: str, limit: float) -> None:
        source = _PROBE.read_bytes()
        # The probe comes first on its standard input, and then the questions.
        start = f"import sys; exec(sys.stdin.buffer.read({len(source)}))"
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 -- closed by __exit__
        self._ended = threading.Event()
        argv = command(node, head, ["python3", "-IS", "-c", start])
        try:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise Silent(f"{argv[0]}: {error.strerror}") from error
        self._timer = threading.Timer(limit, self._stop)
        self._timer.daemon = True
        self._timer.start()
        self._limit = limit
        self._send(source)

    def __enter__(self) -> Dialogue:  # noqa: PYI034 -- Python 3.7 has no Self
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        kill_group(self._process.pid)
        self._process.communicate()
        self._errors.close()

    def ask(self, question: dict[str, Any]) -> Any:  # noqa: ANN401 -- JSON
        """The probe's answer; raises `Silent`."""
        self._send(json.dumps(question).encode() + b"\n")
        if self._process.stdout is None:
            raise Silent("it has no output")
        line = self._process.stdout.readline()
        try:
            return json.loads(line)
        except ValueError:
            raise Silent(self._why(line)) from None

    def clock(self) -> tuple[float, float]:
        """Seconds by which the node's clock is ahead of ours, and how far that may be wrong."""
        best = (0.0, float("inf"))
        for _ in range(_EXCHANGES):
            before, began = time.time(), time.monotonic()
            there = float(self.ask({"ask": "time"}))
            trip = time.monotonic() - began
            if trip / 2 < best[1]:
                best = (there - before - trip / 2, trip / 2)
        return best

    def _send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # the reader finds out why
            if self._process.stdin is not None:
                self._process.stdin.write(data)
                self._process.stdin.flush()

    def _stop(self) -> None:
        self._ended.set()
        kill_group(self._process.pid)

    def _why(self, line: bytes) -> str:
        """Why there was no answer."""
        if self._ended.is_set():
            return f"no answer within {self._limit:g} s"
        try:
            status = self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            return f"it said {line.decode(errors='replace').strip()[:80]!r}"
        self._errors.seek(0)
        return Said(status, "", text_of(self._errors.read())).why
