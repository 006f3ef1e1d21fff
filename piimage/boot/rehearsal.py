"""A rehearsal from start to end: the artifact on an overlay, a boot, the questions, the power button."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import socket
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from piimage import plan
from piimage.bake.session import Packages
from piimage.boot import card, checks, guest, machine, qemu
from piimage.boot.checks import Finding
from piimage.boot.machine import Machine
from piimage.boot.qemu import SilentError
from piimage.boot.report import Rehearsal
from piimage.emulator import accelerator
from piimage.errors import PiimageError, RehearsalError
from piimage.run import require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from piimage.bases.record import Base
    from piimage.bases.store import Store
    from piimage.boot.card import Card
    from piimage.boot.guest import Access
    from piimage.boot.machine import Wire
    from piimage.boot.qemu import Vm
    from piimage.cluster import Cluster, Node
    from piimage.components.contribution import Check
    from piimage.emulator import Accel
    from piimage.progress import Progress
    from piimage.state import State

REPORT = "report.json"
#: Seconds in which a node must be off after its power button was pressed (design: workers within two minutes).
_POWER_OFF = 120
_EMULATED = 3
#: Seconds without a word after which QEMU's `raspi3b` has stopped for good and is started once more.
_SILENCE = 240
#: Seconds in which ssh must let us in once the console shows a login prompt.
_REACH = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to rehearse: `timeout` in seconds for each long wait, `disk_size` in bytes, `memory` in MiB."""

    machine: Machine = Machine.VIRT
    timeout: float = 900
    disk_size: int | None = None
    memory: int = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What a rehearsal needs to know: whose artifact, what was promised, how to log in.

    `hold` is called while the node runs, after the questions; with None it is switched off at once.
    """

    cluster: Cluster
    node: Node
    artifact: Path
    state: State
    asked: tuple[Check, ...]
    build: str | None
    progress: Progress
    options: Options = Options()
    hold: Callable[[Access | None, Vm], None] | None = None


def directory(output: Path, node: Node, machine_: Machine) -> Path:
    """Where console and report are kept: below the artifacts, one place per node and machine."""
    place = output / "rehearsal" / node.name
    return place if machine_ is Machine.VIRT else place / machine_.value


def promised(
    cluster: Cluster,
    node: Node,
    *,
    store: Store,
    state: State,
    env: Mapping[str, str],
    output: Path,
    progress: Progress,
) -> tuple[tuple[Check, ...], str | None, str | None]:
    """The plan's own checks, the build of the artifact, and a sentence if that is not what would be built now."""
    base = _base(cluster, node, store, progress)
    variant = plan.plan_variant(cluster, node.role, base.facts)
    try:
        known = json.loads((output / "manifest.json").read_bytes())["nodes"][node.name]
    except (FileNotFoundError, ValueError, KeyError):
        known = {}
    secrets = state.secrets(cluster, env)
    stamp = plan.plan_stamp(cluster, node, base.facts, variant, known.get("variant", ""), secrets)
    build = known.get("img")
    stale = None
    if build is not None and build != stamp.build:
        stale = (
            f"the image of `{node.name}` was built from another cluster.yaml than the present one"
        )
    return (*variant.checks, *stamp.checks), build, stale


def _base(cluster: Cluster, node: Node, store: Store, progress: Progress) -> Base:
    """What the node's image was built from; nothing is resolved or baked for a rehearsal."""
    packages = Packages(cluster, store, progress, locked=True)
    packages.settle([node.role])
    base = packages.cached(node.role)
    if base is None:
        raise PiimageError(
            f"the base of `{node.name}` with its packages is not in the cache",
            hint=f"run `piimage build --node {node.name}`",
        )
    return base


def rehearse(stage: Stage, output: Path) -> Rehearsal:
    """Rehearse a node; console and `report.json` stay in `directory`.

    A node that does not come up or breaks a promise is a result like any other: `Rehearsal.check` raises.
    Raises `PiimageError` for an artifact that cannot be started at all.
    """
    require("qemu-system-aarch64", "qemu-img", "ssh")
    options = stage.options
    place = directory(output, stage.node, options.machine)
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(place), _scratch(place) as scratch:
        found = card.read_card(stage.artifact)
        accel = _accel(options.machine, stage.progress)
        added = machine.additions(options.machine, found.cmdline, accel)
        size = machine.overlay_size(options.machine, found.size, options.disk_size)
        record = Rehearsal(
            cluster=stage.cluster.name,
            node=stage.node.name,
            build=stage.build,
            machine=options.machine.value,
            accel=accel.name,
            artifact=stage.artifact,
            disk_size=size,
            cmdline=" ".join([found.cmdline, *added]),
            additions=added,
            console=place / "console.log",
        )
        stage.progress.say(f"added to the card's command line for the rehearsal: {' '.join(added)}")
        report = place / REPORT
        try:
            _perform(stage, found, accel, record, scratch)
        except RehearsalError as error:
            record.error = error.message
        except BaseException:
            record.error = "the rehearsal was broken off"
            raise
        finally:
            record.write(report)
        return record


def _accel(machine_: Machine, progress: Progress) -> Accel:
    usable = machine_ is Machine.VIRT and os.access("/dev/kvm", os.R_OK | os.W_OK)
    accel = accelerator(platform.machine(), usable=usable)
    if accel.emulated:
        progress.say("QEMU emulates the processor (TCG): a boot takes minutes instead of seconds")
    return accel


def _perform(stage: Stage, found: Card, accel: Accel, record: Rehearsal, scratch: Path) -> None:
    """Boot, ask, switch off; a `raspi3b` that falls silent is started once more, and the report says so."""
    try:
        _once(stage, found, accel, record, scratch)
    except SilentError as error:
        if stage.options.machine is not Machine.RASPI3B:
            raise
        record.silent = error.message.partition("\n")[0]
        record.console.replace(record.console.with_name("console-silent.log"))
        stage.progress.warn(f"{record.silent}; QEMU's `raspi3b` does that now and then: once more")
        _once(stage, found, accel, record, scratch)


def _once(stage: Stage, found: Card, accel: Accel, record: Rehearsal, scratch: Path) -> None:
    """One start from a fresh overlay to the power button; what is found goes into `record`."""
    options = stage.options
    net = machine.wire(stage.cluster, stage.node, _free_port())
    network = net if options.machine is Machine.VIRT else None
    parts = _parts(found, options.machine, record, scratch)
    argv = machine.argv(options.machine, parts, accel, options.memory, network)
    place = record.console.parent
    nudge = machine.NUDGE if options.machine is Machine.RASPI3B else None
    with qemu.start(argv, record.console, place / "qemu.log", nudge=nudge) as vm:
        with stage.progress.step(f"booting {stage.node.name} on `{options.machine}`") as task:
            limit = options.timeout
            silence = _SILENCE if options.machine is Machine.RASPI3B else None
            took = vm.await_login(stage.node.name, limit=limit, task=task, silence=silence)
            record.timings["login"] = round(took, 1)
        prompt = f"{stage.node.name} login:"
        record.findings.append(Finding("login prompt", True, prompt, prompt))
        access = None
        if network is not None:
            access = _ask(stage, found, network, vm, record)
        if stage.hold is not None:
            stage.hold(access, vm)
        if network is not None and vm.running:
            _switch_off(stage, accel, vm, record)


def _parts(found: Card, machine_: Machine, record: Rehearsal, scratch: Path) -> machine.Parts:
    """The card's own kernel, initrd and device tree beside an overlay over the artifact."""
    layout = found.layout
    dtb = None
    if machine_ is Machine.RASPI3B:
        name = card.device_tree(layout.dtbs, machine.DEVICE_TREES)
        dtb = card.extract(found, name, scratch)
    disk = scratch / "card.qcow2"
    qemu.overlay(record.artifact, disk, record.disk_size)
    return machine.Parts(
        kernel=card.extract(found, layout.kernel, scratch),
        initrd=card.extract(found, layout.initrd, scratch) if layout.initrd else None,
        dtb=dtb,
        cmdline=record.cmdline,
        disk=disk,
        console=record.console,
    )


def _ask(stage: Stage, found: Card, net: Wire, vm: Vm, record: Rehearsal) -> Access:
    """Log in with the cluster's key, take the node's facts, judge them; `asked` is when, by our clock."""
    cluster, timeout = stage.cluster, stage.options.timeout
    access = guest.write_access(
        record.console.parent,
        name=stage.node.name,
        user=cluster.users[0].name,
        port=net.port,
        identity=stage.state.path / "id",
        ca_public=(stage.state.path / "ca.pub").read_text(encoding="utf-8"),
    )
    users = [user.name for user in cluster.users]
    text = guest.program(users, stage.asked, timeout)
    with stage.progress.step(f"asking {stage.node.name} from inside"):
        began, first = vm.seconds, time.time()
        said = guest.ask(access, text, vm, reach=_REACH, limit=3 * timeout)
        record.facts = {**said, "asked": [int(first), int(time.time()) + 1]}
        record.timings["facts"] = round(vm.seconds - began, 1)
    record.findings += checks.judge(
        record.facts,
        cluster,
        stage.node,
        wire=net,
        baked_machine_id=found.machine_id,
        asked=stage.asked,
    )
    return access


def _switch_off(stage: Stage, accel: Accel, vm: Vm, record: Rehearsal) -> None:
    """The power button; a node that does not obey is a finding like any other."""
    limit = _POWER_OFF * (_EMULATED if accel.emulated else 1)
    expected = f"off within {limit} s of the power button"
    with stage.progress.step(f"switching {stage.node.name} off") as task:
        try:
            took = vm.power_down(limit=limit, task=task)
        except RehearsalError as error:
            record.findings.append(Finding("power off", False, expected, error.message))
            return
    record.timings["power_off"] = round(took, 1)
    record.findings.append(Finding("power off", True, expected, f"off after {took:.0f} s"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Two rehearsals of one node would write one console; raises `PiimageError` for the second."""
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise PiimageError(
            f"another rehearsal is using `{place}`", hint="wait for it, or end it with Ctrl-C"
        ) from None
    finally:
        os.close(descriptor)


@contextmanager
def _scratch(place: Path) -> Iterator[Path]:
    """A directory for kernel and overlay; what a killed rehearsal left there goes first."""
    scratch = place / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
