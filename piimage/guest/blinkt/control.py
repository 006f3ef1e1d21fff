"""Who shows what: the node's setting, what was asked for since it booted, and the one unit that shows it."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .health import Share

if TYPE_CHECKING:
    from collections.abc import Mapping

UNIT = "piimage-blinkt.service"
#: What cluster.yaml says, and what somebody asked for since; /run is empty after a boot.
SETTINGS = Path("/etc/piimage/blinkt.json")
REQUEST = Path("/run/piimage/blinkt.json")
OFF = "off"
SHOWS = ("load", "larson", "status", "locate")
_LIMIT = 30.0


class ControlError(Exception):
    """The unit cannot be told; the message says why."""


@dataclass(frozen=True)
class Wish:
    """A show and its brightness (1 to 31); `until` is in seconds of the monotonic clock, None for good."""

    show: str
    brightness: int
    until: float | None = None


@dataclass(frozen=True)
class Settings:
    """The node's own wish, and the shares whose state `status` shows."""

    wish: Wish
    shares: tuple[Share, ...] = ()


def settings(path: Path = SETTINGS) -> Settings:
    """What the image was built with; status at a low brightness where nothing can be read."""
    data = _load(path)
    shares = data.get("shares")
    return Settings(
        wish=_wish(data, Wish("status", 4)),
        shares=tuple(
            Share(str(one["path"]), str(one["server"]))
            for one in (shares if isinstance(shares, list) else ())
            if isinstance(one, dict) and {"path", "server"} <= one.keys()
        ),
    )


def wished(own: Wish, now: float, path: Path = REQUEST) -> Wish:
    """What is to be shown at `now`: the last request, the one before when its time is over, else `own`."""
    data: Any = _load(path)
    for _ in range(2):
        if not data:
            return own
        wish = _wish(data, own)
        if wish.until is None or wish.until > now:
            return wish
        data = data.get("after")
        data = data if isinstance(data, dict) else {}
    return own


def ask(wish: Wish, path: Path = REQUEST) -> None:
    """Put `wish` down as the last request; one with an end goes back to what was wished for good."""
    wanted: dict[str, Any] = _plain(wish)
    if wish.until is not None:
        data = _load(path)
        before = [data, data.get("after")]
        lasting = [
            one for one in before if isinstance(one, dict) and one and one.get("until") is None
        ]
        if lasting:
            wanted["after"] = {
                key: lasting[0][key] for key in ("show", "brightness") if key in lasting[0]
            }
    path.parent.mkdir(mode=0o755, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(json.dumps(wanted) + "\n", encoding="utf-8")
    scratch.replace(path)


def systemctl(verb: str) -> None:
    """Start, stop or restart the unit; raises `ControlError` when systemd does not do it."""
    try:
        done = subprocess.run(
            ["systemctl", verb, UNIT],
            capture_output=True, text=True, timeout=_LIMIT, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ControlError(f"systemctl {verb} {UNIT}: {error}") from error
    if done.returncode != 0:
        words = done.stderr.strip().splitlines()
        raise ControlError(f"systemctl {verb} {UNIT}: {words[-1] if words else done.returncode}")


def _plain(wish: Wish) -> dict[str, Any]:
    plain: dict[str, Any] = {"show": wish.show, "brightness": wish.brightness}
    return plain if wish.until is None else {**plain, "until": wish.until}


def _wish(data: Mapping[str, Any], own: Wish) -> Wish:
    """The wish in `data`; what is missing or makes no sense is taken from `own`."""
    show, brightness, until = (data.get(key) for key in ("show", "brightness", "until"))
    wish = replace(own, until=float(until) if isinstance(until, (int, float)) else None)
    if show in {*SHOWS, OFF}:
        wish = replace(wish, show=str(show))
    if isinstance(brightness, int) and 1 <= brightness <= 31:  # noqa: PLR2004 -- five bits
        wish = replace(wish, brightness=brightness)
    return wish


def _load(path: Path) -> dict[str, Any]:
    """The object in a JSON file, empty when there is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
