"""`piimage-blinkt`: what the light bar of this node, or of others, shows."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from . import control, health, lines, player, remote, shows
from .apa102 import MAX_BRIGHTNESS
from .simulator import Screen, SimulatedWire

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Enough to be seen from the door, for as long as it takes to walk there.
_LOCATE_BRIGHTNESS, _LOCATE_SECONDS = 16, 60.0
#: What the unit runs: its ExecStart, ExecStopPost and ExecCondition.
_FOR_THE_UNIT = ("run", "clear", "probe")
_ROOT = Path("/")

_EPILOG = """\
shows:
  load     how busy the processors are, as a bar from green to red
  larson   a red eye that goes to and fro
  status   an LED each for system, share, clock, temperature, power, wire, disk, and a heartbeat:
           green well, blue waiting, amber warning, red and blinking bad, dark unknown
  locate   the bar blinks white, so that a person finds the node
  off      nothing; stops whatever shows

run, clear and probe are what piimage-blinkt.service calls.

examples:
  sudo piimage-blinkt load
  piimage-blinkt locate --on node3
  piimage-blinkt off --on all
  piimage-blinkt larson --simulate
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; exit status 0 done, 1 failed, 2 wrong usage."""
    options = _parser().parse_args(argv)
    try:
        return _dispatch(options)
    except (lines.NoBarError, control.ControlError, remote.UnknownNodeError) as error:
        print(f"piimage-blinkt: {error}", file=sys.stderr)
        return 1


def _dispatch(options: argparse.Namespace) -> int:
    if options.simulate:
        return _simulate(options)
    if options.on:
        return _elsewhere(options)
    if options.show in _FOR_THE_UNIT:
        return {"run": _run, "clear": _clear, "probe": _probe}[options.show]()
    return _show(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="piimage-blinkt",
        description="Says what the light bar Blinkt of this node shows.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    choices = (*control.SHOWS, control.OFF, *_FOR_THE_UNIT)
    parser.add_argument(
        "show", choices=choices, metavar="SHOW", help=f"one of {', '.join(choices[:5])}"
    )
    parser.add_argument(
        "--brightness",
        type=_whole,
        metavar="N",
        help=f"1 to {MAX_BRIGHTNESS}; default: cluster.yaml's",
    )
    parser.add_argument(
        "--seconds",
        type=_seconds,
        metavar="S",
        help=f"then go back to what was shown before; default: for good, locate {_LOCATE_SECONDS:.0f}",
    )
    parser.add_argument(
        "--on", action="append", metavar="NODE", help="a node, or `all`; may be repeated"
    )
    parser.add_argument("--simulate", action="store_true", help="draw the bar in this terminal")
    return parser


def _whole(text: str) -> int:
    if text.isdecimal() and 1 <= int(text) <= MAX_BRIGHTNESS:
        return int(text)
    raise argparse.ArgumentTypeError(f"`{text}` is not 1 to {MAX_BRIGHTNESS}")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:  # noqa: PLR2004 -- thirty years, and no infinity
        raise argparse.ArgumentTypeError(f"`{text}` is not a number of seconds")
    return value


def _wish(options: argparse.Namespace, own: control.Wish, now: float) -> control.Wish:
    """The wish that the options say, with defaults of the show."""
    locate = options.show == "locate"
    seconds = options.seconds
    if seconds is None and locate:
        seconds = _LOCATE_SECONDS
    usual = max(own.brightness, _LOCATE_BRIGHTNESS) if locate else own.brightness
    return control.Wish(
        show=options.show,
        brightness=options.brightness or usual,
        until=None if seconds is None else now + seconds,
    )


def _show(options: argparse.Namespace) -> int:
    """Tell the unit of this node."""
    if os.geteuid() != 0:
        raise control.ControlError("only root may drive the bar: try sudo")
    now = time.monotonic()
    wish = _wish(options, control.settings().wish, now)
    if wish.show == control.OFF:
        control.ask(wish)
        control.systemctl("stop")
        return _clear()
    lines.find_chip(lines.load_gpiod())
    control.systemctl("stop")
    # Whoever else holds the lines is told of here: the unit could only say so in the journal.
    lines.open_wire().close()
    control.ask(wish)
    control.systemctl("start")
    return 0


def _elsewhere(options: argparse.Namespace) -> int:
    """The same on other nodes."""
    words = [options.show]
    if options.brightness is not None:
        words.append(f"--brightness={options.brightness}")
    if options.seconds is not None:
        words.append(f"--seconds={options.seconds:g}")
    failures = remote.run_on(remote.chosen(options.on), words)
    for node, reason in failures.items():
        print(f"piimage-blinkt: {node}: {reason}", file=sys.stderr)
    return 1 if failures else 0


def _run() -> int:
    """What the unit does: show what is wished until it is stopped, then go dark."""
    own = control.settings()
    stop = _stop_on_signals()
    wire = lines.open_wire()
    try:
        while not stop.is_set():
            now = time.monotonic()
            wish = control.wished(own.wish, now)
            if wish.show == control.OFF:
                break
            print(f"{wish.show} on {wire.name}", flush=True)
            left = None if wish.until is None else wish.until - now
            player.play(_made(wish.show, own), wire, wish.brightness, seconds=left, stop=stop)
    finally:
        player.clear(wire)
        wire.close()
    return 0


def _clear() -> int:
    """All LEDs off; a node without a bar's lines has nothing to clear."""
    try:
        gpiod = lines.load_gpiod()
        lines.find_chip(gpiod)
    except lines.NoBarError:
        return 0
    wire = lines.open_wire()
    player.clear(wire)
    wire.close()
    return 0


def _probe() -> int:
    """Whether this machine has the lines of a bar."""
    lines.find_chip(lines.load_gpiod())
    return 0


def _simulate(options: argparse.Namespace) -> int:
    """The show in this terminal."""
    own = control.settings()
    now = time.monotonic()
    wish = control.wished(own.wish, now) if options.show == "run" else _wish(options, own.wish, now)
    wire, screen = SimulatedWire(), Screen(sys.stdout)
    if wish.show not in control.SHOWS:
        player.clear(wire)
        screen.draw(wire.chain.pixels, control.OFF)
    else:
        show = _made(wish.show, own)
        player.play(
            show,
            wire,
            wish.brightness,
            seconds=options.seconds,
            stop=_stop_on_signals(),
            shown=lambda: screen.draw(wire.chain.pixels, show.caption()),
        )
    screen.end()
    return 0


def _made(name: str, own: control.Settings) -> shows.Show:
    """The show of that name, about this node."""
    if name == "load":
        return shows.Load(lambda: health.cpu_times(_ROOT))
    if name == "larson":
        return shows.Larson()
    if name == "locate":
        return shows.Locate()
    host = socket.gethostname().partition(".")[0]
    return shows.Status(
        health.Watch(lambda: health.findings(_ROOT, own.shares, host, health.answer))
    )


def _stop_on_signals() -> threading.Event:
    """Set by SIGTERM and Ctrl-C."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop
