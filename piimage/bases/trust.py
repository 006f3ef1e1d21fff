"""`piimage base trust`: keys of publishers, taken from a file or a key server, kept once their fingerprint is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from piimage.bases import openpgp
from piimage.bases.openpgp import Key, spaced
from piimage.errors import ConfigError, FetchError, PiimageError
from piimage.web import read_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from piimage.bases.publishers import Publisher

#: Where a key is asked for by its fingerprint, if nothing else is said. It serves keys with their names, which gpg
#: wants; what it serves is compared with the fingerprint.
KEYSERVER = "https://keyserver.ubuntu.com"
_LARGEST = 4 << 20
_HINT = "give a key file instead: `piimage base trust FILE`"


@dataclass(frozen=True, slots=True)
class Trusted:
    """A key that may sign for a publisher from now on, and where it lies."""

    key: Key
    publisher: str
    path: Path


def from_server(wanted: str, server: str = KEYSERVER) -> bytes:
    """The key file of a fingerprint, from a key server (HKP: draft-gallagher-openpgp-hkp, 3.1).

    Raises `FetchError` when it does not come, or when another key comes.
    """
    if urlsplit(server).scheme not in {"http", "https"}:
        raise ConfigError(f"`{server}` is no key server: an address that begins with `https://`")
    url = f"{server.rstrip('/')}/pks/lookup?op=get&options=mr&search=0x{wanted}"
    data = read_bytes(url, hint=_HINT, largest=_LARGEST)
    if data is None:
        raise FetchError(f"{urlsplit(server).netloc} has no key {spaced(wanted)}", hint=_HINT)
    return data


def from_file(path: Path) -> bytes:
    """What a key file holds, of 4 MiB at most; raises `PiimageError` when it cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise PiimageError(
            f"cannot read `{path}`: {reason}",
            hint="give a key file or a fingerprint of 40 hex digits",
        ) from error
    if len(data) > _LARGEST:
        raise PiimageError(f"`{path}` is too large for a key file")
    return data


def trust(
    data: bytes,
    publishers: Mapping[str, Publisher],
    *,
    wanted: str | None = None,
    publisher: str | None = None,
) -> list[Trusted]:
    """Keep keys of a key file as ones that may sign.

    Without `wanted` those whose fingerprints profiles name, each for the publishers that name it. With it that one
    key; for `publisher`, whom the profile then need not name. Raises `PiimageError` when that leaves no key:
    a key whose fingerprint nobody vouched for is never kept.
    """
    if publisher is not None and publisher not in publishers:
        known = ", ".join(f"`{name}`" for name in publishers)
        raise ConfigError(f"`{publisher}` is not a publisher: {known}")
    keys = openpgp.read_keys(data)
    if wanted is not None:
        keys = [key for key in keys if key.fingerprint == wanted]
        if not keys:
            raise PiimageError(
                f"that is another key than {spaced(wanted)}",
                hint=f"its fingerprint: {_listed(openpgp.read_keys(data))}",
            )
    found = [
        Trusted(key, name, openpgp.add_key(data, key.fingerprint, name))
        for key in keys
        for name, who in publishers.items()
        if (key.fingerprint in who.keys and publisher in {None, name})
        or (wanted is not None and publisher == name)
    ]
    if not found:
        raise PiimageError(
            f"no profile names a key of this file: {_listed(keys)}",
            hint="compare the fingerprint with what the publisher says, then give it: `piimage base trust FILE "
            "--fingerprint FINGERPRINT --publisher NAME`",
        )
    return found


def _listed(keys: list[Key]) -> str:
    return "; ".join(f"{spaced(key.fingerprint)} ({key.owner or 'no name'})" for key in keys)
