"""The script that installs a layer with dpkg: what every engine runs, as a pure function of the lock.

Services are not started, and nothing is left that is not the packages' own: `traces.sh` and `install_dpkg.sh` have
that part.
"""

from __future__ import annotations

import shlex
from importlib.resources import files
from typing import TYPE_CHECKING

from piimage.bake.engine import PACKAGES
from piimage.distros.firmware_hook import DEFAULTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from piimage.bake.lock import Layer, Package, Step

#: The marks that `apt autoremove` goes by.
_EXTENDED_STATES = "/var/lib/apt/extended_states"
_PLACE, _AFTER = "#STEPS\n", "#CONFIGURED\n"
#: Debian's raspi-firmware writes the command line anew with every initramfs and looks at this machine for what is the
#: board's, so it is told. A Pi 4 would not start with what it would write by itself.
_TOLD = f"""\
board=/run/piimage/board
rm -f $board && [ ! -f {DEFAULTS} ] || cp -a {DEFAULTS} $board
printf '%s\\n' {{}} >>{DEFAULTS}
"""
_UNTOLD = f"rm -f {DEFAULTS} && [ ! -f $board ] || cp -a $board {DEFAULTS}\n"
#: For a layer of nothing: then nothing in the image may change.
_EMPTY = 'set -eu\naudit=$(dpkg --audit)\n[ -z "$audit" ] || { echo "$audit"; exit 1; }\n'


def script(
    layer: Layer,
    *,
    architecture: str,
    when: int = 0,
    preseed: Sequence[str] = (),
    board: Mapping[str, str] | None = None,
) -> bytes:
    """POSIX sh that installs `layer` into a guest of `architecture`, for `Job.script`.

    `when` is the time, in seconds since the epoch, that programs note which can be told one. `preseed` are lines of
    debconf-set-selections(1). `board` are variables for raspi-firmware's hook, for as long as the script runs.
    """
    if not layer.steps:
        return _EMPTY.encode()
    rooms = files("piimage.bake")
    traces = (rooms / "traces.sh").read_text(encoding="utf-8")
    text = (rooms / "install_dpkg.sh").read_text(encoding="utf-8")
    head, _, tail = (traces + "\n" + text).partition(_PLACE)
    by_name = {package.name: package for package in layer.packages}
    body = [*_preseed(preseed)]
    if board:
        body.append(_TOLD.format(shlex.join(f'{name}="{v}"' for name, v in board.items())))
    before, _, after = tail.partition(_AFTER)
    tail = before + (_UNTOLD if board else "") + after
    for step in layer.steps:
        body += _step(step, by_name)
    body += _marks((p for p in layer.packages if p.automatic), architecture)
    return (f"when={when}\n" + head + "\n".join(body) + "\n" + tail).encode()


def _preseed(lines: Sequence[str]) -> list[str]:
    if not lines:
        return []
    return [f"printf '%s\\n' {shlex.join(lines)} | debconf-set-selections"]


def _step(step: Step, packages: dict[str, Package]) -> list[str]:
    if step.action == "unpack":
        names = shlex.join(f"{PACKAGES}/{packages[name].file}" for name in step.names)
        return [
            f"say unpacking {len(step.names)} packages",
            f"run_dpkg --no-triggers --unpack {names}",
        ]
    if step.action == "configure":
        return [f"run_dpkg --no-triggers --configure {shlex.join(step.names)}"]
    return [f"run_dpkg --no-triggers --force-depends --remove {shlex.join(step.names)}"]


def _marks(packages: Iterable[Package], native: str) -> list[str]:
    """What came only because others need it is marked so, or it would stay for ever; apt marks `all` as native."""
    paragraphs = "".join(
        f"Package: {p.name.partition(':')[0]}\n"
        f"Architecture: {native if p.architecture == 'all' else p.architecture}\nAuto-Installed: 1\n\n"
        for p in packages
    )
    return [f"cat >>{_EXTENDED_STATES} <<'END'\n{paragraphs}END"] if paragraphs else []
