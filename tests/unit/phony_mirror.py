"""A web server of the test's own that serves bytes by path, and misbehaves as it is told to."""

from __future__ import annotations

import http.server
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class File:
    """What is served at a path: `etag` validates it; `cuts` are lengths after which answers break off.

    `lies`: `ignore-range` (200 for a Range), `wrong-start` (a Content-Range of other bytes),
    `wrong-total`, `no-content-range`, `other-bytes` (right headers, wrong bytes), `no-etag`, `no-length`,
    `gzip` (a Content-Encoding that nobody asked for), `busy` (503 once per entry of `cuts`), `hang` (silence instead
    of breaking off, until the server ends or is `released`).
    """

    data: bytes
    etag: str = '"one"'
    cuts: list[int] = field(default_factory=list)
    lies: set[str] = field(default_factory=set)


class Mirror(http.server.ThreadingHTTPServer):
    """`files` by path; `seen` holds path and Range header of each request, in order."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, File] = {}
        self.seen: list[tuple[str, str | None]] = []
        self.hung, self.released = threading.Event(), threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def put(self, path: str, data: bytes, **how: Any) -> File:
        """Serve `data` at `path`."""
        self.files[path] = File(data, **how)
        return self.files[path]

    def ranges(self, path: str) -> list[str | None]:
        """The Range headers of the requests for a path."""
        return [asked for where, asked in self.seen if where == path]

    def handle_error(self, *_: object) -> None:
        """Clients that hang up are what some tests want."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Mirror

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(self.path)
        self.server.seen.append((path, self.headers["Range"]))
        file = self.server.files.get(path)
        if file is None:
            self.send_error(404)
            return
        if "busy" in file.lies and file.cuts:
            file.cuts.pop()
            self.send_error(503)
            return
        start = self._start(file)
        data = file.data[start:]
        if start and "other-bytes" in file.lies:
            data = bytes(len(data))
        self._head(file, start, len(data))
        cut = file.cuts.pop(0) if file.cuts else len(data)
        self.wfile.write(data[:cut])
        if cut < len(data) and "hang" in file.lies:
            self.wfile.flush()
            self.server.hung.set()
            self.server.released.wait(60)
        self.close_connection = True

    def _start(self, file: File) -> int:
        """Where the answer begins, by Range and If-Range (RFC 9110, sections 13.1.5 and 14.2)."""
        match = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        condition = self.headers["If-Range"]
        if not match or "ignore-range" in file.lies or condition not in {None, file.etag}:
            return 0
        return int(match[1])

    def _head(self, file: File, start: int, length: int) -> None:
        total = len(file.data) + ("wrong-total" in file.lies)
        if start > len(file.data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
        elif start:
            self.send_response(206)
            first = 0 if "wrong-start" in file.lies else start
            if "no-content-range" not in file.lies:
                self.send_header("Content-Range", f"bytes {first}-{total - 1}/{total}")
        else:
            self.send_response(200)
        if "no-etag" not in file.lies:
            self.send_header("ETag", file.etag)
        if "gzip" in file.lies:
            self.send_header("Content-Encoding", "gzip")
        if "no-length" not in file.lies:
            self.send_header("Content-Length", str(length))
        self.end_headers()


@contextmanager
def mirror() -> Iterator[Mirror]:
    """A running server."""
    server = Mirror()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
