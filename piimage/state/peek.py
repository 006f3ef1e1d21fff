"""A look at a cluster's secrets that leaves its state as it is: no key is made, none is fetched."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from piimage.errors import ConfigError, StateError
from piimage.state.directory import check_private
from piimage.state.state import State, location

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from piimage.cluster import Cluster
    from piimage.components.contribution import Secrets


def peek(
    cluster: Cluster, source: Path, env: Mapping[str, str], scratch: Path
) -> tuple[Secrets | None, str]:
    """The secrets of `cluster` from the state beside `source`, which is left as it is: a copy is asked.

    `scratch` is an empty directory of the caller's alone. Without them the second part says what is missing.
    """
    path = location(source)
    if not path.exists():
        return None, f"there is no state `{path}` yet"
    check_private(path)
    copy = State(scratch / "state")
    shutil.copytree(path, copy.path)
    try:
        copy.check()
        return copy.secrets(cluster, env, create=False), ""
    except (StateError, ConfigError) as error:
        reason = error.message.partition(", and `--require-state`")[0]
        return None, reason.replace(str(copy.path), str(path))
    finally:
        shutil.rmtree(copy.path)
