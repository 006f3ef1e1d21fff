"""Counting the appliance's starts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: Logs each start of the appliance, then is the real QEMU.
WRAPPER = """#!/bin/sh
case " $* " in *" -kernel "*) echo "$$" >>{log} ;; esac
exec {qemu} "$@"
"""


@dataclass(frozen=True)
class Launches:
    """Counts starts of the appliance. A KVM that crashes costs one more, once per boot of the machine."""

    log: Path
    hypervisor: Path

    def count(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0

    def environment(self) -> dict[str, str]:
        return {**os.environ, "LIBGUESTFS_HV": str(self.hypervisor)}
