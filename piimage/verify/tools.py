"""What programs of this machine say about files of an image, where they are there: visudo(8), cloud-init's schema."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from piimage.components import slots
from piimage.run import available, run
from piimage.verify.catalog import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from piimage.verify.view import View

#: Programs that are asked if they are installed.
OPTIONAL = ("visudo", "cloud-init")
_SCHEMAS = {slots.USER_DATA: "cloud-config", slots.NETWORK: "network-config"}


def sudoers(view: View) -> Iterator[Finding]:
    """PI216 by visudo(8); each file by itself, since what it includes is in the image."""
    if not available("visudo"):
        return
    for path in ("/etc/sudoers", *view.below("/etc/sudoers.d")):
        seen = view.root.get(path)
        if seen is None or seen.kind != "file":
            continue
        text = view.text(path)
        lines = [line for line in text.splitlines(keepends=True) if "includedir" not in line]
        for words in _asked("visudo", "-c", "-f", content="".join(lines)):
            yield Finding("PI216", path, f"visudo says: {words}")


def cloud_config(view: View) -> Iterator[Finding]:
    """PI208 by `cloud-init schema`."""
    if not available("cloud-init"):
        return
    for path, kind in _SCHEMAS.items():
        content = view.text(path)
        if content.strip():
            argv = ("cloud-init", "schema", "--schema-type", kind, "--config-file")
            for words in _asked(*argv, content=content):
                yield Finding("PI208", path, f"cloud-init says: {words}")


def _asked(*argv: str, content: str) -> Iterator[str]:
    """The first line of what a program has against a file of this content, which is ours alone."""
    with tempfile.TemporaryDirectory(prefix="piimage-") as scratch:
        path = Path(scratch, "file")
        path.touch(0o600)
        path.write_text(content, encoding="utf-8", errors="surrogateescape")
        result = run([*argv, path], check=False)
        if result.returncode:
            said = (result.stderr + b"\n" + result.stdout).decode(errors="replace")
            lines = [line.replace(str(path), path.name).strip() for line in said.splitlines()]
            yield next((line for line in lines if line), f"status {result.returncode}")
