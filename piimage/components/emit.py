"""The one place that writes YAML: what cloud-init and netplan read back as the same values.

They read YAML 1.1 (PyYAML, libyaml), where an unquoted `NO` is false and `0644` is 420; PyYAML's
own safe_dump quotes whatever its reader would take for something else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Wide enough that no scalar is folded: a folded hash or key is legal, and unreadable to people.
_WIDTH = 1 << 16


class _Dumper(yaml.SafeDumper):
    """Without anchors: equal lists are written twice, since `&id001` puzzles readers."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401, ARG002 -- PyYAML's signature
        return True


def yaml_text(data: Mapping[str, Any]) -> str:
    """`data` as block-style YAML 1.1 with sorted keys; equal data give equal text.

    ASCII only: PyYAML would write U+0085 and its like as they are, and read blanks back.
    """
    text: str = yaml.dump(
        dict(data),
        Dumper=_Dumper,
        sort_keys=True,
        allow_unicode=False,
        default_flow_style=False,
        width=_WIDTH,
    )
    return text


def cloud_config(data: Mapping[str, Any]) -> bytes:
    """`data` as cloud-init user-data: the magic first line, then YAML."""
    return b"#cloud-config\n" + yaml_text(data).encode("ascii")
