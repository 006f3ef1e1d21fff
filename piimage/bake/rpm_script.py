"""The script that installs a layer with rpm: what every engine runs, as a pure function of the lock.

Services are not started, and nothing is left that is not the packages' own: `traces.sh` and `install_rpm.sh` have that
part. SELinux is off where the script runs, so files come without labels.
"""

from __future__ import annotations

import shlex
from importlib.resources import files
from typing import TYPE_CHECKING

from piimage.bake.engine import PACKAGES

if TYPE_CHECKING:
    from piimage.bake.lock import Layer, Package, Step

_PLACE = "#STEPS\n"
#: For a layer of nothing: then nothing in the image may change.
_EMPTY = "exit 0\n"


def script(layer: Layer) -> bytes:
    """POSIX sh that installs `layer`, for `Job.script`."""
    if not layer.steps:
        return _EMPTY.encode()
    rooms = files("piimage.bake")
    traces = (rooms / "traces.sh").read_text(encoding="utf-8")
    text = (rooms / "install_rpm.sh").read_text(encoding="utf-8")
    head, _, tail = (traces + "\n" + text).partition(_PLACE)
    names = shlex.join(f"{p.name}-{p.version}.{p.architecture}" for p in layer.packages)
    by_name = {package.name: package for package in layer.packages}
    body = [f"installed={shlex.quote(names)}", *(_step(step, by_name) for step in layer.steps)]
    return (head + "\n".join(body) + "\n" + tail).encode()


def _step(step: Step, packages: dict[str, Package]) -> str:
    """One call; rpm orders packages itself, and configures each as it comes."""
    if step.action == "remove":
        return f"run_rpm --erase --nodeps {shlex.join(step.names)}"
    paths = shlex.join(f"{PACKAGES}/{packages[name].file}" for name in step.names)
    return f"say installing {len(step.names)} packages\nrun_rpm --upgrade {paths}"
