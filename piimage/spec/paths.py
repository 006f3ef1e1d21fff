"""File names in cluster.yaml: `~` is the user's home, the rest starts where cluster.yaml lies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def located(text: str, directory: Path, env: Mapping[str, str]) -> Path:
    """The absolute path that `text` means; `~user` is left as it is and will not be found."""
    if text == "~" or text.startswith("~/"):
        text = env.get("HOME", "~") + text[1:]
    return Path(os.path.normpath(directory.absolute() / text))
