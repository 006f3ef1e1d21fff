"""Which engine bakes on this machine."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from piimage.bake import native_copy
from piimage.bake.chroot import ChrootEngine, Tools
from piimage.bases import archive, namespace
from piimage.bases.debian import COMPONENTS
from piimage.bases.native import native_tools
from piimage.errors import PiimageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from piimage.bake.engine import Engine
    from piimage.bases.cache import Cache
    from piimage.bases.record import Base
    from piimage.progress import Progress

#: Distributions whose releases go by Debian's names; tools for any other guest come from `_SUITE`.
_DEBIANS = ("debian", "raspbian")
_SUITE = "trixie"
_NATIVE = {"x86_64": "amd64"}
#: dpkg's own name of an architecture that a native dpkg can be made to answer with.
_GUESTS = ("arm64", "armhf")


def choose(base: Base, *, cache: Cache, progress: Progress) -> Engine:
    """The engine for bakes into `base`; raises `MissingToolError` with what this machine lacks."""
    prefix = namespace.prefix()
    return ChrootEngine(prefix=prefix, tools=_tools(base, prefix, cache, progress))


def _tools(base: Base, prefix: Sequence[str], cache: Cache, progress: Progress) -> Tools | None:
    """Native tools of the guest's release; without them all is emulated, which is right too, and slow."""
    architecture = _NATIVE.get(platform.machine())
    if architecture is None:
        return None
    os = base.facts.os
    suite = os.codename if os.id in _DEBIANS and os.codename else _SUITE
    try:
        sources = archive.sources(suite, COMPONENTS)
        tools = native_tools(suite, sources, namespace=prefix, cache=cache, progress=progress)
        if tools is None:
            return None
        directory = native_copy.moved(tools, architecture, _GUESTS, cache=cache, progress=progress)
    except PiimageError as error:
        progress.warn(f"no native tools for the bake, which will take longer: {error.message}")
        return None
    return Tools(directory=directory, triplet=tools.triplet, loader=tools.loader)
