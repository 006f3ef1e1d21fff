"""`piimage base pull` and `piimage base trust`: published images, and the keys that they are signed with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from piimage.cli import completion
from piimage.cli.console import progress_for
from piimage.cli.options import Json
from piimage.errors import PiimageError


def pull(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            autocompletion=completion.images,
            help="A name that `piimage base list` shows as `pull`.",
        ),
    ],
    *,
    source: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Take the image from this file.")
    ] = None,
    mirror: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            envvar="PIIMAGE_MIRROR",
            help="A directory that holds the published files, or the address of a mirror.",
        ),
    ] = None,
    sha256: Annotated[
        str | None, typer.Option(metavar="HEX", help="Refuse the image unless it has this sha256.")
    ] = None,
    without_signature: Annotated[
        bool,
        typer.Option("--without-signature", help="Let the digest in the catalog be proof enough."),
    ] = False,
    json_output: Json = False,
) -> None:
    """Download an image that is published, check who signed it, and take it in as a base.

    Example: piimage base pull raspios-trixie-arm64-lite
    """
    from piimage.bases.catalog import cure, entries  # noqa: PLC0415 -- start-up time
    from piimage.bases.places import place  # noqa: PLC0415 -- start-up time
    from piimage.bases.pull import pull as pull_base  # noqa: PLC0415 -- start-up time
    from piimage.bases.store import Store  # noqa: PLC0415 -- start-up time
    from piimage.cli.base import show_base  # noqa: PLC0415 -- it registers this command

    entry = entries(Path()).get(name)
    if entry is None or entry.published is None:
        raise PiimageError(f"`{name}` is not an image that can be pulled", hint=cure(name, ()))
    progress = progress_for(json_output=json_output)
    base = pull_base(
        name,
        entry.published,
        store=Store(progress=progress),
        progress=progress,
        place=place(mirror, source),
        sha256=sha256,
        without_signature=without_signature,
    )
    show_base(base, json_output=json_output)


def trust(
    key: Annotated[
        str, typer.Argument(metavar="KEY", help="A key file, or a fingerprint to fetch the key of.")
    ],
    *,
    fingerprint: Annotated[
        str | None,
        typer.Option(
            metavar="HEX", help="The key of the file that is meant; you have compared it."
        ),
    ] = None,
    publisher: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Whose images it may sign: a name of profiles/images/."),
    ] = None,
    keyserver: Annotated[
        str | None,
        typer.Option(metavar="URL", envvar="PIIMAGE_KEYSERVER", help="Where to fetch keys."),
    ] = None,
    json_output: Json = False,
) -> None:
    """Keep a publisher's key, so that `base pull` can check its signatures.

    Example: piimage base trust F4AADD86C4687D69AE04543E796C114AD12B2292
    """
    from piimage.bases import openpgp  # noqa: PLC0415 -- start-up time
    from piimage.bases import trust as trusting  # noqa: PLC0415 -- start-up time
    from piimage.bases.publishers import read_all  # noqa: PLC0415 -- start-up time

    known, _ = read_all(Path())
    wanted = None if fingerprint is None else openpgp.fingerprint(fingerprint)
    if fingerprint is not None and wanted is None:
        raise PiimageError(
            f"`{fingerprint}` is not a fingerprint, which has 40 or 64 hex digits",
            hint="`gpg --show-keys FILE` prints it",
        )
    asked = None if Path(key).exists() else openpgp.fingerprint(key)
    if asked is not None:
        if wanted not in {None, asked}:
            raise PiimageError("the two fingerprints are of different keys")
        wanted = asked
        with progress_for(json_output=json_output).step("asking the key server"):
            data = trusting.from_server(asked, keyserver or trusting.KEYSERVER)
    else:
        data = trusting.from_file(Path(key).expanduser())
    kept = trusting.trust(data, known, wanted=wanted, publisher=publisher)
    if json_output:
        rows = [
            {
                "fingerprint": one.key.fingerprint,
                "owner": one.key.owner,
                "publisher": one.publisher,
                "path": str(one.path),
            }
            for one in kept
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    for one in kept:
        key_ = openpgp.spaced(one.key.fingerprint)
        typer.echo(f"{known[one.publisher].title}: {key_} ({one.key.owner or 'no name'})")
