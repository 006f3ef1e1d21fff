"""What checks may know besides cluster.yaml itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from piimage.facts import Facts
    from piimage.spec.place import FieldPath


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """The directory of cluster.yaml, the environment, facts of the bases, names of the catalog.

    `facts_at` maps the path of whatever sets a base (`()` for the cluster itself) to its facts.
    """

    directory: Path
    env: Mapping[str, str]
    facts_at: Mapping[FieldPath, Facts] = field(default_factory=dict)
    check_secrets: bool = True
    bases: Collection[str] = ()

    @property
    def facts(self) -> tuple[Facts, ...]:
        """Facts of all bases that are known, each once."""
        return tuple({id(facts): facts for facts in self.facts_at.values()}.values())
