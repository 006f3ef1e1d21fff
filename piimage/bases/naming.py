"""What a base is called after the file that it came as."""

from __future__ import annotations

import re

_SUFFIX = re.compile(r"\.(xz|gz|zst|zip|qcow2|img|raw)$", re.IGNORECASE)


def name_after(file: str) -> str:
    """A base's name after a file's: `2025-10-01-lite.img.xz` is `2025-10-01-lite`."""
    name = re.sub(r"[^a-z0-9._+-]+", "-", stem(file).lower()).lstrip("._+-")
    return name[:100] or "image"


def stem(file: str) -> str:
    """A file's name without the suffixes that images have."""
    while (shorter := _SUFFIX.sub("", file)) != file and shorter:
        file = shorter
    return file
