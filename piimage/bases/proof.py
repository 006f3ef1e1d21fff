"""What proves that an image is the publisher's: digests and signatures, asked for before the image and held against it.

Without one of these nothing is taken in: a signature by a key that may sign, a digest in a profile, or a digest that
the user gives.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from piimage.bases import openpgp
from piimage.bases.publishers import INLINE, Publisher, file_name
from piimage.disk.atomic import write_bytes
from piimage.errors import ConfigError, VerifyError

if TYPE_CHECKING:
    from pathlib import Path

    from piimage.bases.places import Place
    from piimage.bases.publishers import Published
    from piimage.progress import Progress

_SHA256 = re.compile(r"[0-9a-f]{64}")
#: Lines of `sha256sum`, where `*` says that the file was read as binary, and of BSD's, which Fedora uses.
_GNU = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")
_BSD = re.compile(r"SHA256 \((.+)\) = ([0-9a-fA-F]{64})")
_AGAIN = "fetch it again; if it stays so, do not use it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What is known before the image comes: its `sha256`, or a detached `signature` over it, or both."""

    image: Published
    sha256: str | None
    signature: Path | None

    def hold(self, path: Path, sha256: str, progress: Progress) -> None:
        """Raise `VerifyError` unless the image at `path`, which has this digest, is the one."""
        self.digest(sha256)
        if self.signature is not None:
            about = f"`{self.image.file}`"
            with progress.step(f"checking the signature of {self.image.file}"):
                signer = openpgp.check(self.image.publisher, self.signature, path, about=about)
            _tell(progress, about, signer, self.image.publisher)

    def digest(self, sha256: str) -> None:
        """Raise `VerifyError` if another digest is expected."""
        if self.sha256 not in {None, sha256}:
            raise VerifyError(
                f"`{self.image.file}` has sha256 {sha256}, expected {self.sha256}", hint=_AGAIN
            )


def ask(
    image: Published,
    place: Place,
    directory: Path,
    *,
    progress: Progress,
    sha256: str | None = None,
    without_signature: bool = False,
) -> Proof:
    """Ask for all that proves the image, and check what can be checked without it.

    `directory` is private and keeps what came, with a dot before each name. Raises `VerifyError` where something
    does not agree or a key lacks, `ConfigError` where nothing would prove the image, `FetchError` where a part does
    not come.
    """
    if sha256 is not None and not _SHA256.fullmatch(sha256 := sha256.lower()):
        raise ConfigError(f"`{sha256}` is not a sha256, which is 64 hex digits")
    _enough(image, sha256, without_signature=without_signature)
    digests = {"`--sha256`": sha256, "the catalog": image.sha256}
    signature: Path | None = None
    if image.signature and not without_signature:
        with progress.step(f"asking for the signature of {image.file}"):
            if image.sums:
                digests[f"`{file_name(image.sums)}`"] = _signed_digest(
                    image, place, directory, progress
                )
            else:
                signature = directory / f".{file_name(image.signature)}"
                write_bytes(signature, place.small(image.signature), mode=0o600)
                openpgp.lacking(image.publisher, signature, about=f"`{image.file}`")
    return Proof(image=image, sha256=_agreed(digests, image.file), signature=signature)


def digest_of(sums: str, file: str) -> str | None:
    """The digest that a list of digests gives for a file; raises `VerifyError` where it gives two."""
    found = set()
    for line in sums.splitlines():
        if (gnu := _GNU.fullmatch(line.rstrip())) and gnu[2].removeprefix("./") == file:
            found.add(gnu[1].lower())
        elif (bsd := _BSD.fullmatch(line.rstrip())) and bsd[1] == file:
            found.add(bsd[2].lower())
    if len(found) > 1:
        raise VerifyError(f"the list of digests has several for `{file}`", hint=_AGAIN)
    return found.pop() if found else None


def _enough(image: Published, sha256: str | None, *, without_signature: bool) -> None:
    """Raise `ConfigError` where nothing would prove the image."""
    if image.pinned or sha256 is not None or (image.signature and not without_signature):
        return
    if without_signature:
        raise ConfigError(
            f"the catalog has no digest of `{image.file}`: without its signature nothing would prove it",
            hint="leave out `--without-signature`, or give a digest that you trust: `--sha256 HEX`",
        )
    raise ConfigError(
        f"{image.publisher.title} does not sign `{image.file}`, and the catalog has no digest of it",
        hint="give a digest that you trust: `--sha256 HEX`",
    )


def _signed_digest(image: Published, place: Place, directory: Path, progress: Progress) -> str:
    """The digest in the publisher's list, once the list is known to be signed."""
    name = file_name(image.sums)
    sums = directory / f".{name}"
    write_bytes(sums, place.small(image.sums), mode=0o600)
    if image.signature == INLINE:
        signer, text = openpgp.opened(image.publisher, sums, about=f"`{name}`")
    else:
        signature = directory / f".{file_name(image.signature)}"
        write_bytes(signature, place.small(image.signature), mode=0o600)
        signer = openpgp.check(image.publisher, signature, sums, about=f"`{name}`")
        text = sums.read_text(encoding="utf-8", errors="replace")
    _tell(progress, f"`{name}`", signer, image.publisher)
    digest = digest_of(text, image.file)
    if digest is None:
        raise VerifyError(
            f"`{name}` is signed, but says nothing of `{image.file}`",
            hint="the publisher replaced the image: `piimage base list --refresh` may know its new name",
        )
    return digest


def _agreed(digests: dict[str, str | None], file: str) -> str | None:
    """The one digest that all agree on."""
    known = {who: digest for who, digest in digests.items() if digest is not None}
    if len(set(known.values())) > 1:
        said = "; ".join(f"{who}: {digest}" for who, digest in known.items())
        raise VerifyError(
            f"there is no agreement on the sha256 of `{file}`: {said}",
            hint="the publisher replaced the image under the same name, or somebody else did",
        )
    return next(iter(known.values()), None)


def _tell(progress: Progress, about: str, signer: openpgp.Signer, publisher: Publisher) -> None:
    key = openpgp.spaced(signer.fingerprint)
    progress.say(f"{about} was signed by {publisher.title} on {signer.made}, key {key}")
