"""What checks may know besides cluster.yaml itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from piimage.facts import Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """The directory of cluster.yaml, the environment, facts of the bases, names of the catalog."""

    directory: Path
    env: Mapping[str, str]
    facts: tuple[Facts, ...] = ()
    check_secrets: bool = True
    bases: Collection[str] = ()
