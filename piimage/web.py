"""Answers from the web, through urllib: whole or an error, and never out of https."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

from piimage import __version__
from piimage.errors import FetchError

if TYPE_CHECKING:
    from email.message import Message

#: Seconds for each wait on the network, and for a whole answer; the largest answer in bytes.
_WAIT, _DEADLINE, _LARGEST = 15, 30, 256 << 10
_NOT_FOUND = 404
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
        reason = f"{error.code} {error.reason}".strip()
    except urllib.error.URLError as error:
        reason = str(getattr(error.reason, "strerror", None) or error.reason)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = str(getattr(error, "strerror", None) or error) or type(error).__name__
    host = urlsplit(url).netloc or url
    raise FetchError(f"{host} gave nothing: {reason[:_MAX_SHOWN].lower()}", hint=hint)


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
    headers = {"User-Agent": f"piimage/{__version__}"}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 -- _opener has two schemes
    end = time.monotonic() + _DEADLINE
    content = b""
    with _opener().open(request, timeout=_WAIT) as answer:
        while block := answer.read1(1 << 16):
            content += block
            if len(content) > largest:
                raise ValueError(f"the answer is larger than {largest >> 10} KiB")
            if time.monotonic() > end:
                raise ValueError(f"the answer did not end within {_DEADLINE} s")
        if answer.length:  # read1 does not raise IncompleteRead
            raise ValueError("the answer was cut off")
    return content
