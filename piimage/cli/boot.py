"""`piimage boot`: rehearse one node's image in QEMU, or the whole cluster."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from piimage.cli.options import CLUSTER, Json, Quiet, Source, node_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from piimage.boot.access_point import AccessPoint
    from piimage.boot.guest import Access
    from piimage.boot.machine import Machine
    from piimage.boot.qemu import Vm
    from piimage.boot.report import Rehearsal
    from piimage.boot.stage import Options, Stage
    from piimage.cluster import Cluster, Node
    from piimage.progress import Progress

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
#: Seconds for each stage of a node that is alone.
_TIMEOUT = 900.0


def boot(
    source: Source = CLUSTER,
    *,
    node: Annotated[
        list[str] | None,
        node_option("A node, by number or name; several play together."),
    ] = None,
    all_nodes: Annotated[
        bool, typer.Option("--all", help="All nodes together, on one private Ethernet.")
    ] = False,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Run the smoke test on the head once all are up.")
    ] = False,
    order: Annotated[
        str | None,
        typer.Option(
            metavar="NODES|random",
            help="Start them one after another: `node1,node0` (the others follow) or random.",
        ),
    ] = None,
    kill: Annotated[
        str | None,
        typer.Option(
            metavar="NODE",
            help="Cut a node's power at the end (after `--keep`); the rest must switch off.",
        ),
    ] = None,
    machine: Annotated[
        str,
        typer.Option(
            metavar="virt|raspi3b",
            help="virt asks the node from inside; raspi3b sees whether the card boots a Pi 3.",
        ),
    ] = "virt",
    access_point: Annotated[
        str | None,
        typer.Option(
            metavar="right|wrong-passphrase|absent",
            help="Give one node a radio, and what its Wi-Fi meets there. [default: no radio]",
        ),
    ] = None,
    unplugged: Annotated[
        bool,
        typer.Option("--unplugged", help="Put one node's wire in only after its login prompt."),
    ] = False,
    disk_size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Size of the card, such as 8G. [default: image + 1 GiB]"),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=1,
            help="How long to wait for each stage. [default: 900, more for many]",
        ),
    ] = None,
    memory: Annotated[
        int | None,
        typer.Option(
            metavar="MIB", min=256, help="Memory of each `virt`. [default: 1024, or what fits]"
        ),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave it running until Ctrl-C, and say how to log in.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Where the images are. [default: dist/CLUSTER]"
        ),
    ] = None,
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Start images in QEMU and check from inside that they are what cluster.yaml says.

    Several nodes, or all, play together as a cluster. Nothing that was built is changed.

    Example: piimage boot --all --smoke
    """
    from piimage.boot.access_point import AccessPoint  # noqa: PLC0415 -- start-up time
    from piimage.boot.machine import Machine  # noqa: PLC0415 -- start-up time
    from piimage.boot.memory import Share  # noqa: PLC0415 -- start-up time
    from piimage.boot.stage import Options, accelerate  # noqa: PLC0415 -- start-up time
    from piimage.cli.boot_cluster import Wanted, settle, together  # noqa: PLC0415 -- start-up time
    from piimage.cli.console import progress_for  # noqa: PLC0415 -- start-up time
    from piimage.cli.loading import chosen as nodes_of  # noqa: PLC0415 -- start-up time
    from piimage.cli.loading import load  # noqa: PLC0415 -- start-up time

    if bool(node) == all_nodes:
        raise typer.BadParameter("name nodes with `--node`, or take all with `--all`")
    if machine not in list(Machine):
        raise typer.BadParameter(f"`{machine}` is not a machine; one of {', '.join(Machine)}")
    if access_point not in (None, *AccessPoint):
        words = ", ".join(AccessPoint)
        raise typer.BadParameter(f"`{access_point}` is not an access point; one of {words}")
    progress = progress_for(json_output=json_output, quiet=quiet)
    cluster = load(source, progress)
    chosen = nodes_of(cluster, node)
    directory = output or source.parent / "dist" / cluster.name
    options = Options(
        machine=Machine(machine),
        timeout=timeout or _TIMEOUT,
        disk_size=_bytes(disk_size) if disk_size else None,
        memory=Share(memory) if memory else Share(),
        unplugged=unplugged,
    )
    if len(chosen) == 1 and not all_nodes:
        if smoke or order or kill:
            raise typer.BadParameter("`--smoke`, `--order` and `--kill` are for several nodes")
        if unplugged and options.machine is not Machine.VIRT:
            raise typer.BadParameter(f"`--unplugged` needs `virt`: `{machine}` has no network")
        point = None if access_point is None else AccessPoint(access_point)
        if point is not None:
            _has_wifi(cluster, chosen[0], options.machine)
        played = stage(cluster, chosen[0], directory, progress, options, point=point)
        _alone(played, directory, keep=keep, json_output=json_output)
        return
    if access_point is not None or unplugged:
        option = "--unplugged" if unplugged else "--access-point"
        raise typer.BadParameter(f"`{option}` is for one node: take one `--node`")
    if options.machine is not Machine.VIRT:
        raise typer.BadParameter(f"`{machine}` has no network for several nodes: take one `--node`")
    wanted = Wanted(
        nodes=chosen, smoke=smoke, order=order, kill=kill, timeout=timeout, memory=memory
    )
    accel = accelerate(Machine.VIRT, progress)
    options, scenario = settle(cluster, wanted, options, accel)
    stages = [stage(cluster, each, directory, progress, options) for each in chosen]
    together(stages, scenario, accel, directory, source, keep=keep, json_output=json_output)


def _alone(played: Stage, directory: Path, *, keep: bool, json_output: bool) -> None:
    """One node: its report, or a failure that says what was not as promised."""
    from piimage.boot import place, rehearsal  # noqa: PLC0415 -- start-up time

    hold = _holder(played.progress) if keep else None
    result = rehearsal.rehearse(played, directory, hold=hold)
    report = place.directory(directory, played.node, played.options.machine) / place.REPORT
    if json_output:
        print(json.dumps(result.to_json(), indent=2))  # noqa: T201 -- cli prints
    result.check(report)
    if not json_output:
        _tell(result, report)


def _has_wifi(cluster: Cluster, node: Node, machine: Machine) -> None:
    """Raise `BadParameter` where an access point would meet nobody."""
    if machine != "virt":
        raise typer.BadParameter(f"`--access-point` needs `virt`: `{machine}` has no radio")
    if cluster.wifi is None or not node.role.wifi:
        raise typer.BadParameter(f"`{node.name}` has no Wi-Fi in cluster.yaml")


def stage(
    cluster: Cluster,
    node: Node,
    directory: Path,
    progress: Progress,
    options: Options,
    *,
    point: AccessPoint | None = None,
) -> Stage:
    """What the rehearsal needs; raises `PiimageError` when the image or the state is not there.

    With a `point` the node gets a radio, which takes a kit from the cache, or from the archive.
    """
    from piimage.bases.store import Store  # noqa: PLC0415 -- start-up time
    from piimage.boot import access_point, disk, radio_kit  # noqa: PLC0415 -- start-up time
    from piimage.boot.promise import promised  # noqa: PLC0415 -- start-up time
    from piimage.boot.stage import Stage  # noqa: PLC0415 -- start-up time
    from piimage.errors import StateError  # noqa: PLC0415 -- start-up time
    from piimage.state.state import location, open_state  # noqa: PLC0415 -- start-up time

    disk.candidates(directory, node)  # what is missing is said before keys are asked for
    if not location(cluster.source).exists():
        raise StateError(
            f"there is no state directory `{location(cluster.source)}`, whose key opens the node's door",
            hint="bring it here with `piimage state import FILE`",
        )
    state, store = open_state(cluster, create=False), Store(progress=progress)
    promise = promised(
        cluster,
        node,
        store=store,
        state=state,
        env=os.environ,
        output=directory,
        progress=progress,
    )
    if promise.stale:
        progress.warn(f"{promise.stale}; `piimage build --node {node.number}` makes it anew")
    radio = None
    if point is not None and cluster.wifi is not None and promise.psk is not None:
        access_point.check_guest(node.name, promise.packages.get("systemd", ""))
        kit = radio_kit.ensure(store, progress)
        radio = access_point.radio(kit, point, cluster.wifi, promise.psk, cluster.subnet)
    return Stage(
        cluster=cluster,
        node=node,
        disk=promise.disk,
        state=state,
        asked=promise.asked,
        progress=progress,
        options=options,
        radio=radio,
    )


def _holder(progress: Progress) -> Callable[[Access | None, Vm], None]:
    """Keeps the node running until Ctrl-C, or until it switches itself off."""

    def hold(access: Access | None, vm: Vm) -> None:
        how = access.command if access else f"tail -f {vm.console.path}"
        progress.say(f"running until Ctrl-C: `{how}`")
        try:
            vm.wait_while_running()
        except KeyboardInterrupt:
            progress.say("switching off")

    return hold


def _bytes(text: str) -> int:
    """`8G`, `4096M`, or plain bytes; raises `BadParameter`."""
    found = re.fullmatch(r"(\d+)([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if found is None:
        raise typer.BadParameter(f"`{text}` is not a size; write one such as 8G or 4096M")
    return int(found[1]) * _UNITS[found[2].upper()]


def _tell(result: Rehearsal, report: Path) -> None:
    """What was asked and found, in a few lines."""
    kept = sum(finding.ok is True for finding in result.findings)
    took = ", ".join(
        f"{name.replace('_', ' ')} {seconds:.0f} s" for name, seconds in result.timings.items()
    )
    print(f"{result.node}: {kept} checks passed on `{result.machine}` ({took})  {report}")  # noqa: T201 -- cli prints
    for finding in result.findings:
        if finding.ok is None:
            print(f"{finding.name}: {finding.found}")  # noqa: T201 -- cli prints
