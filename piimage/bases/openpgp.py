"""OpenPGP signatures of publishers, checked by gpgv with keys that somebody chose to trust.

A key counts by the fingerprint of its primary key: those that the profile names, and those that the user added for a
publisher. Where the key itself comes from does not matter then: it is either that key, or gpgv finds no key at all.
"""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from piimage.disk.atomic import write_bytes
from piimage.errors import PiimageError, VerifyError
from piimage.run import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from piimage.bases.publishers import Publisher
    from piimage.run import Result

FINGERPRINT = re.compile(r"[0-9A-F]{40}|[0-9A-F]{64}")
#: Digests that nobody should sign with any more (RFC 9580, 9.5).
_WEAK = ("MD5", "SHA1", "RIPEMD160")
_RC = 6


@dataclass(frozen=True, slots=True)
class Key:
    """A public key: `fingerprint` of its primary key, and who it says that it is."""

    fingerprint: str
    owner: str


@dataclass(frozen=True, slots=True)
class Signer:
    """Who made a good signature, by primary key; `made` is a UTC date as in `2026-01-31`."""

    fingerprint: str
    made: str


def keys_root() -> Path:
    """`$XDG_CONFIG_HOME/piimage/keys`, else `~/.config/piimage/keys`: keys that the user trusts."""
    xdg = os.environ.get("XDG_CONFIG_HOME", "")
    parent = Path(xdg) if xdg.startswith("/") else Path.home() / ".config"
    return parent / "piimage" / "keys"


def fingerprint(text: str) -> str | None:
    """A fingerprint as people write it, with spaces or `0x`, in its plain form; None if it is none."""
    plain = re.sub(r"\s", "", text).upper().removeprefix("0X")
    return plain if FINGERPRINT.fullmatch(plain) else None


def spaced(text: str) -> str:
    """A fingerprint in groups of four, as people compare it."""
    return " ".join(text[at : at + 4] for at in range(0, len(text), 4))


def trusted(publisher: Publisher) -> frozenset[str]:
    """Fingerprints of who may sign for the publisher."""
    return frozenset({*publisher.keys, *(path.stem for path in _own(publisher.name))})


def read_keys(data: bytes) -> list[Key]:
    """The public keys in a key file, armoured or not; raises `PiimageError` when there is none."""
    argv = ["--with-colons", "--import-options", "show-only", "--import"]
    with _home() as home:
        said = _gpg(home, *argv, data=data)
    found: list[Key] = []
    waiting = False
    for line in said.text.splitlines():
        fields = line.split(":")
        if fields[0] == "sec":
            raise PiimageError(
                "the file holds a secret key", hint="export the public one: `gpg --export`"
            )
        if fields[0] == "pub":
            waiting = True
        elif fields[0] == "fpr" and waiting:
            found.append(Key(fields[9], ""))
            waiting = False
        elif fields[0] == "uid" and found and not found[-1].owner:
            found[-1] = Key(found[-1].fingerprint, _printable(fields[9]))
    if not found:
        raise PiimageError(
            "the file holds no OpenPGP public key", hint="a key file is what `gpg --export` writes"
        )
    return found


def add_key(data: bytes, wanted: str, publisher: str) -> Path:
    """Keep the key `wanted` of a key file as one that may sign for a publisher, and say where."""
    with _home() as home:
        _gpg(home, "--import", data=data)
        minimal = _gpg(home, "--export-options", "export-minimal", "--export", wanted).stdout
    if not minimal:
        raise PiimageError(f"the file holds no key {spaced(wanted)}")
    place = keys_root() / publisher
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = place / f"{wanted}.gpg"
    write_bytes(path, minimal, mode=0o600)
    return path


def check(publisher: Publisher, signature: Path, data: Path, *, about: str) -> Signer:
    """Who signed `data` with the detached `signature`.

    Raises `VerifyError` for what is not signed by a key that may, which says what to do when only the key lacks.
    """
    return _judge(_gpgv(publisher, signature, data), publisher, about)


def lacking(publisher: Publisher, signature: Path, *, about: str) -> None:
    """Raise `VerifyError` if none of the keys of this detached signature is here: without the signed data."""
    with tempfile.TemporaryDirectory() as directory:
        nothing = Path(directory) / "nothing"
        nothing.touch()
        result = _gpgv(publisher, signature, nothing)
    said = _status(result)
    if not any(words[0] in {"BADSIG", "GOODSIG", "EXPKEYSIG", "REVKEYSIG"} for words in said):
        _refuse_unknown(said, publisher, about)
        raise _unreadable(result, about)


def opened(publisher: Publisher, signed: Path, *, about: str) -> tuple[Signer, str]:
    """Who signed a clear-signed text, and the text that the signature covers: nothing before or after it."""
    with tempfile.TemporaryDirectory() as directory:
        text = Path(directory) / "text"
        result = _gpgv(publisher, "--output", text, signed)
        signer = _judge(result, publisher, about)
        return signer, text.read_text(encoding="utf-8", errors="replace")


def _gpgv(publisher: Publisher, *argv: str | Path) -> Result:
    """What gpgv says; it knows the keys that lie here under the publisher, and the profile's keyrings."""
    rings = [*_own(publisher.name), *(path for path in publisher.keyrings if path.is_file())]
    weak = [word for name in _WEAK for word in ("--weak-digest", name)]
    with _home() as home:
        # gpgv falls back to a keyring of its own where it is given none.
        empty = Path(home) / "none.gpg"
        empty.touch()
        words = [word for ring in (empty, *rings) for word in ("--keyring", ring.absolute())]
        return run(
            ["gpgv", "--homedir", home, "--status-fd", "1", *weak, *words, *argv], check=False
        )


def _judge(result: Result, publisher: Publisher, about: str) -> Signer:
    """The signer, from gpgv's status lines: its exit status speaks of all signatures at once.

    One good signature by a key that may is enough, since publishers sign with an old and a new key for a while.
    A bad one by any key that is here says that something was changed.
    """
    said = _status(result)
    kinds = {words[0] for words in said}
    if "ERROR" in kinds:  # several messages in one file, above all
        raise _unreadable(result, about)
    if "BADSIG" in kinds:
        raise VerifyError(
            f"the signature of {about} is wrong: it was changed, or is another file's",
            hint="fetch it again; if it stays so, do not use it",
        )
    may, made = trusted(publisher), _made(said)
    mine = [(state, signer) for state, signer in made if signer.fingerprint in may]
    for state, signer in mine:
        if state == "GOODSIG":
            return signer
    for state, signer in mine:
        raise VerifyError(
            f"{about} is signed with a key that {_ILL[state]}: {spaced(signer.fingerprint)}",
            hint="if the publisher renewed it, add the newer one: "
            f"`piimage base trust FILE --publisher {publisher.name}`",
        )
    if made:
        strangers = [signer.fingerprint for _, signer in made]
        raise VerifyError(
            f"{about} is signed by {', '.join(map(spaced, strangers))}, which may not sign for "
            f"{publisher.title}",
            hint="if the publisher says that this is its key: `piimage base trust FILE "
            f"--fingerprint {strangers[0]} --publisher {publisher.name}`",
        )
    _refuse_unknown(said, publisher, about)
    raise _unreadable(result, about)


def _made(said: list[list[str]]) -> list[tuple[str, Signer]]:
    """Signatures that are mathematically right, each with what gpgv thinks of its key (GnuPG, doc/DETAILS)."""
    found: list[tuple[str, Signer]] = []
    state = ""
    for words in said:
        if words[0] == "NEWSIG":
            state = ""
        elif words[0] == "GOODSIG" or words[0] in _ILL:
            state = words[0]
        elif words[0] == "VALIDSIG":  # fingerprint, date, ..., fingerprint of the primary key
            found.append((state, Signer(words[-1], words[2])))
    return found


def _unreadable(result: Result, about: str) -> VerifyError:
    """The error for what gpgv takes for no signature, or for one of a kind that it refuses; its last words say why."""
    lines = result.stderr.decode(errors="replace").strip().splitlines()[-3:]
    return VerifyError(
        f"{about} has no signature that gpgv accepts" + "".join(f"\n    {line}" for line in lines),
        hint="fetch it again; if it stays so, do not use it",
    )


_ILL = {
    "": "cannot be judged",
    "EXPSIG": "signed for a limited time, which is over",
    "EXPKEYSIG": "has expired",
    "REVKEYSIG": "was revoked",
}


def _refuse_unknown(said: list[list[str]], publisher: Publisher, about: str) -> None:
    """Raise for signatures by keys that are not here; return if there are none."""
    # ERRSIG keyid pkalgo hashalgo sigclass time rc fingerprint: 9 is a key that is not here.
    unknown = [_issuer(w) for w in said if w[0] == "ERRSIG" and len(w) > _RC and w[_RC] == "9"]
    if not unknown:
        return
    may = trusted(publisher)
    wanted = [key for key in sorted(may) if any(key.endswith(issuer[-16:]) for issuer in unknown)]
    if wanted:
        where = f", which the publisher shows at {publisher.key_url}" if publisher.key_url else ""
        raise VerifyError(
            f"{about} is signed by {publisher.title} with a key that is not here: {spaced(wanted[0])}",
            hint=f"`piimage base trust {wanted[0]}` fetches that key from a key server, "
            f"`piimage base trust FILE` takes it from a file{where}",
        )
    raise VerifyError(
        f"{about} is signed by {spaced(unknown[0])}, which is neither here nor one of the keys of "
        f"{publisher.title}",
        hint="if the publisher says that it has a new key, get that and compare: `piimage base trust FILE "
        f"--fingerprint FINGERPRINT --publisher {publisher.name}`",
    )


def _issuer(words: list[str]) -> str:
    """Whose signature an ERRSIG is about: the fingerprint where it is told, else the key id."""
    last = words[-1]
    return last if FINGERPRINT.fullmatch(last) else words[1]


def _status(result: Result) -> list[list[str]]:
    prefix = "[GNUPG:] "
    lines = (line for line in result.text.splitlines() if line.startswith(prefix))
    return [words for line in lines if (words := line.removeprefix(prefix).split())]


def _own(publisher: str) -> Iterator[Path]:
    """Key files that the user added for a publisher."""
    for path in sorted((keys_root() / publisher).glob("*.gpg")):
        if FINGERPRINT.fullmatch(path.stem):
            yield path


def _home() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="piimage-keys-")


def _gpg(home: str, *argv: str, data: bytes | None = None) -> Result:
    return run(
        ["gpg", "--homedir", home, "--batch", "--no-autostart", "--no-tty", *argv],
        stdin=data,
        check=False,
    )


def _printable(text: str) -> str:
    """A user id as gpg's colons give it, with hex escapes, without control characters."""
    plain = re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), text)
    return "".join(c if c.isprintable() else "?" for c in plain)
