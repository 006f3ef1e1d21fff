"""Answers from the web, through urllib: whole or an error, and never out of https."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from piimage import __version__
from piimage.errors import FetchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from email.message import Message

#: Seconds for each wait on the network, and for a whole answer; the largest answer in bytes.
_WAIT, _DEADLINE, _LARGEST = 15, 30, 256 << 10
_NOT_FOUND, _BAD_RANGE = 404, 416
#: Answers of a server that has trouble of its own: time-outs, too much to do.
_PASSING = (408, 425, 429, 500, 502, 503, 504)
#: What urllib, http.client and sockets raise.
_FAILURES = (OSError, http.client.HTTPException, ValueError)
_MAX_SHOWN = 200


def read_text(url: str, *, hint: str) -> str | None:
    """The text at `url`, or None where the server says that there is none (404).

    Raises `FetchError` with `hint` for anything else than a whole answer, of 256 KiB at most.
    """
    data = read_bytes(url, hint=hint)
    return None if data is None else data.decode(errors="replace")


def read_bytes(url: str, *, hint: str, largest: int = _LARGEST) -> bytes | None:
    """As `read_text`, undecoded, and of up to `largest` bytes."""
    try:
        return _read(url, largest)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == _NOT_FOUND:
            return None
        reason = _reason(error)
    except _FAILURES as error:
        reason = _reason(error)
    raise FetchError(_nothing(url, reason), hint=hint)


class BrokenOffError(FetchError):
    """No answer, or one that broke off: another time it may go better."""


class Answer:
    """The beginning of an answer: `status` and `headers` are HTTP's, the rest comes by `read`."""

    def __init__(self, response: Any, url: str, hint: str) -> None:  # noqa: ANN401 -- urllib has two kinds
        self._response, self._url, self._hint = response, url, hint
        self.status: int = response.status
        self.headers: Message = response.headers

    def read(self, size: int) -> bytes:
        """What has come, at most `size` bytes, b"" at the end.

        Raises `BrokenOffError`, also where less came than the server had announced.
        """
        try:
            data: bytes = self._response.read1(size)
        except _FAILURES as error:
            raise BrokenOffError(_broken(self._url, _reason(error)), hint=self._hint) from error
        if not data and self._response.length:
            raise BrokenOffError(_broken(self._url, "the answer was cut off"), hint=self._hint)
        return data


@contextmanager
def answer(url: str, headers: Mapping[str, str], *, hint: str) -> Iterator[Answer]:
    """What the server says to a GET with these headers: 200, 206 or 416.

    Raises `BrokenOffError` where another try may do better, `FetchError` for a refusal.
    """
    try:
        response = _opener().open(_request(url, headers), timeout=_WAIT)
    except urllib.error.HTTPError as error:
        if error.code != _BAD_RANGE:
            error.close()
            kind = BrokenOffError if error.code in _PASSING else FetchError
            raise kind(_nothing(url, _reason(error)), hint=hint) from error
        response = error
    except _FAILURES as error:
        raise BrokenOffError(_nothing(url, _reason(error)), hint=hint) from error
    with response:
        yield Answer(response, url, hint)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"{error.code} {error.reason}".strip()
    if isinstance(error, urllib.error.URLError):
        return str(getattr(error.reason, "strerror", None) or error.reason)
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


def _nothing(url: str, reason: str) -> str:
    return f"{urlsplit(url).netloc or url} gave nothing: {reason[:_MAX_SHOWN].lower()}"


def _broken(url: str, reason: str) -> str:
    return f"the connection to {urlsplit(url).netloc} broke: {reason[:_MAX_SHOWN].lower()}"


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a site to another address, but not into the clear, where anybody may answer."""

    def redirect_request(  # noqa: PLR0917 -- urllib's signature
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> urllib.request.Request | None:
        """The next request; raises `ValueError` for one without https after one with it."""
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise ValueError("the site leads to an address without https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type] # a Message will do


def _opener() -> urllib.request.OpenerDirector:
    """An opener for http and https alone: urllib's own also reads files and ftp."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener


def _read(url: str, largest: int) -> bytes:
    end = time.monotonic() + _DEADLINE
    content = b""
    with _opener().open(_request(url, {}), timeout=_WAIT) as answer:
        while block := answer.read1(1 << 16):
            content += block
            if len(content) > largest:
                raise ValueError(f"the answer is larger than {largest >> 10} KiB")
            if time.monotonic() > end:
                raise ValueError(f"the answer did not end within {_DEADLINE} s")
        if answer.length:  # read1 does not raise IncompleteRead
            raise ValueError("the answer was cut off")
    return content


def _request(url: str, headers: Mapping[str, str]) -> urllib.request.Request:
    named = {"User-Agent": f"piimage/{__version__}", **headers}
    return urllib.request.Request(url, headers=named)  # noqa: S310 -- _opener has two schemes
