"""The engine that was chosen, with what it needs."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from piimage.bake import native_copy, packaging
from piimage.bake.chroot import ChrootEngine, Tools
from piimage.bake.vm import VmEngine
from piimage.bases import archive
from piimage.bases.debian import COMPONENTS
from piimage.bases.native import native_tools
from piimage.errors import PiimageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from piimage.bake.choice import Choice
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


def engine(choice: Choice, base: Base, *, cache: Cache, progress: Progress) -> Engine:
    """The engine of a choice, for bakes into `base`."""
    if choice.name == "vm":
        return VmEngine(cache=cache)
    tools = _tools(base, choice.prefix, cache, progress)
    return ChrootEngine(prefix=choice.prefix, tools=tools)


def _tools(base: Base, prefix: Sequence[str], cache: Cache, progress: Progress) -> Tools | None:
    """Native tools of the guest's release; without them all is emulated, which is right too, and slow."""
    architecture = _NATIVE.get(platform.machine())
    if architecture is None or not packaging.is_dpkg(base.facts):
        return None  # scriptlets of another family may count on what their own tools do and Debian's do not
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
