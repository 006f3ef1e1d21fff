"""A rehearsal of several nodes together: one private Ethernet, every node asked, the smoke test, a power cut."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from piimage.boot import cluster_report as reports
from piimage.boot import first_start, outage, page, place, smoke, steps
from piimage.boot.actor import company
from piimage.boot.checks import Finding
from piimage.boot.cluster_report import ClusterRehearsal
from piimage.boot.fabric import fabric, sockets
from piimage.boot.parallel import each
from piimage.boot.testbed import testbed
from piimage.errors import RehearsalError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from piimage.boot.actor import Actor
    from piimage.boot.machine import Parts
    from piimage.boot.stage import Stage
    from piimage.boot.testbed import Outcome, Testbed
    from piimage.cluster import Share
    from piimage.emulator import Accel

    Hold = Callable[[Testbed, Sequence[str]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is played: names in the order of their start, each waiting for the one before if `one_by_one`."""

    order: tuple[str, ...]
    one_by_one: bool = False
    smoke: bool = False
    kill: str | None = None


def home(output: Path) -> Path:
    """Where the reports about the whole lie."""
    return output / "rehearsal"


def rehearse(
    stages: Sequence[Stage],
    scenario: Scenario,
    accel: Accel,
    output: Path,
    *,
    hold: Hold | None = None,
) -> ClusterRehearsal:
    """Rehearse nodes of one cluster together, given in the cluster's order and with equal options.

    Each node's console and report lie where they lie when it is alone, the whole's in `home`. `hold` is called
    before a power cut and the end, with the names of the nodes that can be entered. What fails is a result like
    any other: `ClusterRehearsal.check` raises. Raises `PiimageError` for what cannot be started at all. Runs in
    the main thread.
    """
    root, first = home(output), stages[0]
    with ExitStack() as stack:
        stack.enter_context(place.alone(root))
        for name in (reports.REPORT, smoke.REPORT, smoke.PAGE):
            (root / name).unlink(missing_ok=True)
        directory = stack.enter_context(sockets())
        actors = company(stages, accel, output, directory, stack)
        report = ClusterRehearsal(
            cluster=first.cluster.name,
            accel=accel.name,
            nodes={name: actor.record for name, actor in actors.items()},
            order=scenario.order,
            one_by_one=scenario.one_by_one,
            memory=first.options.memory.node,
            started=int(time.time()),
        )
        try:
            wires = {name: actor.wire for name, actor in actors.items()}
            with fabric(wires, directory, root) as net, testbed(net) as bed:
                _Play(actors, scenario, accel, bed, report).perform(hold)
        except RehearsalError as error:
            report.error = error.message
        except BaseException:
            report.error = "the rehearsal was broken off"
            raise
        finally:
            _write(actors, report, root, with_page=scenario.smoke)
        return report


def _write(
    actors: Mapping[str, Actor], report: ClusterRehearsal, root: Path, *, with_page: bool
) -> None:
    """Every node's report, the whole's, and the smoke test's own with its page."""
    for actor in actors.values():
        actor.record.write(actor.record.console.with_name(place.REPORT))
    report.write(root / reports.REPORT)
    if with_page:
        smoke.write(report.smoke, root / smoke.REPORT)
        page.write(report.to_json(), root / smoke.PAGE)


class _Play:
    """A rehearsal under way on a testbed; what it finds goes into the report and the actors' records."""

    def __init__(
        self,
        actors: Mapping[str, Actor],
        scenario: Scenario,
        accel: Accel,
        bed: Testbed,
        report: ClusterRehearsal,
    ) -> None:
        first = next(iter(actors.values())).stage
        self._actors, self._scenario, self._accel = actors, scenario, accel
        self._bed, self._report = bed, report
        self._cluster, self._progress, self._options = first.cluster, first.progress, first.options
        self._reach = steps.REACH * first.options.crowd

    @property
    def _ready(self) -> list[str]:
        """Nodes that are on and let us in."""
        on = self._bed.running
        return [n for n, a in self._actors.items() if n in on and a.record.error is None]

    def perform(self, hold: Hold | None) -> None:
        """All of it; raises `RehearsalError` when the network fails or the smoke test cannot run."""
        began = time.monotonic()
        self._boot()
        self._ask()
        self._miss("while the nodes were asked")
        if self._scenario.smoke:
            self._smoke()
            self._miss("during the smoke test")
        if hold is not None:
            hold(self._bed, self._ready)
        if self._scenario.kill is not None:
            self._kill(self._scenario.kill)
            self._miss(f"after the power of {self._scenario.kill} was cut")
        self._power_off()
        self._report.timings["all"] = round(time.monotonic() - began, 1)

    def _boot(self) -> None:
        scenario, parts = self._scenario, {}
        with self._progress.step(f"preparing {len(scenario.order)} nodes") as task:
            for name in scenario.order:
                task.note(name)
                parts[name] = self._actors[name].parts()
        tokens = dict.fromkeys(t for a in self._actors.values() for t in a.record.additions)
        self._progress.say(f"added to the command lines for the rehearsal: {' '.join(tokens)}")
        self._first_starts(parts)
        starts = {
            name: self._actors[name].start(its, self._accel)
            for name, its in parts.items()
            if self._actors[name].record.error is None
        }
        how = "one after another" if scenario.one_by_one else "at once"
        began = time.monotonic()
        with self._progress.board(f"booting {len(starts)} nodes {how}", list(starts)) as board:
            outcomes = self._bed.boot(
                starts,
                one_by_one=scenario.one_by_one,
                limit=self._options.timeout,
                board=board,
            )
        self._report.timings["logins"] = round(time.monotonic() - began, 1)
        for name, outcome in outcomes.items():
            record = self._actors[name].record
            if isinstance(outcome, RehearsalError):
                record.error = outcome.message
            else:
                steps.came_up(record, outcome)

    def _first_starts(self, parts: dict[str, Parts]) -> None:
        """Play those that end with a restart, without a wire: `parts` are then those of the next start."""
        again = [name for name, its in parts.items() if first_start.needed(its.cmdline)]
        if not again:
            return
        starts = {n: self._actors[n].start(parts[n], self._accel, wired=False) for n in again}
        began = time.monotonic()
        title = f"first starts, which end by themselves, of {len(again)} nodes"
        with self._progress.board(title, again) as board:
            outcomes = self._bed.first_starts(starts, limit=self._options.timeout, board=board)
        for name, outcome in outcomes.items():
            record = self._actors[name].record
            if isinstance(outcome, RehearsalError):
                record.error = outcome.message
                continue
            try:
                parts[name] = first_start.left(parts[name], record, outcome)
            except RehearsalError as error:
                record.error = error.message
        self._report.timings["first_starts"] = round(time.monotonic() - began, 1)

    def _ask(self) -> None:
        ready = self._ready

        def ask(name: str) -> str:
            neighbours = [self._actors[other] for other in ready if other != name]
            return self._actors[name].ask(self._bed.vms[name], neighbours)

        for name, error in self._each("asking", ready, ask).items():
            self._actors[name].record.error = error.message

    def _miss(self, when: str) -> None:
        """Nodes that ended though nobody switched them off have failed."""
        for name, actor in self._actors.items():
            if actor.record.error is None and name != self._report.killed:
                try:
                    self._bed.vms[name].check_alive(when)
                except RehearsalError as error:
                    actor.record.error = error.message

    def _smoke(self) -> None:
        """The image's own test, if every node is there for it; without a report that is a finding."""
        missing = [name for name in self._actors if name not in self._ready]
        said = f"not run, for these did not come up: {', '.join(missing)}"
        if not missing:
            self._stand_in()
            head, began = self._cluster.head.name, time.monotonic()
            way, vm, limit = self._actors[head].way, self._bed.vms[head], 3 * self._options.timeout
            part = smoke.PART * steps.patience(self._accel) * self._options.crowd
            try:
                with self._progress.step(f"smoke test on {head}"):
                    self._report.smoke = smoke.run(
                        way, vm, part=part, reach=self._reach, limit=limit
                    )
            except RehearsalError as error:
                said = error.message
            self._report.timings["smoke"] = round(time.monotonic() - began, 1)
        if self._report.smoke is None:
            finding = Finding("smoke test", False, "a report from all nodes", said)
            self._report.findings.append(finding)

    def _stand_in(self) -> None:
        """The second NICs; where one cannot be brought up the smoke test does without, and that is said."""

        def bring_up(name: str) -> str:
            actor = self._actors[name]
            mac, vm = actor.wire.other_mac, self._bed.vms[name]
            smoke.stand_in(actor.way, vm, mac, reach=self._reach)
            return "up"

        errors = self._each("Wi-Fi stand-in on", list(self._actors), bring_up)
        for name, error in errors.items():
            finding = Finding(f"Wi-Fi stand-in on {name}", None, "up", error.message)
            self._report.findings.append(finding)
        done = [name for name in self._actors if name not in errors]
        if done:
            self._report.additions.append(f"{smoke.ADDITION}: {', '.join(done)}")

    def _kill(self, name: str) -> None:
        """Shares put to use where they are mounted, then the node's power cut."""
        if name not in self._bed.running:
            expected, found = f"{name} on, to have its power cut", "it did not come up"
            self._report.findings.append(Finding("power cut", False, expected, found))
            return
        for share in self._cluster.shares:
            users = [n for n in self._ready if n not in (share.server, name)]

            def use(user: str, share: Share = share) -> str:
                actor = self._actors[user]
                found = outage.use(actor.way, self._bed.vms[user], share, reach=self._reach)
                actor.record.findings.append(found)
                return found.found

            self._each(f"using {share.path} on", users, use)
        with self._progress.step(f"{name}: power cut"):
            self._bed.vms[name].kill()
            self._report.killed = name
            time.sleep(outage.NOTICED)

    def _power_off(self) -> None:
        """The power buttons: all workers at once, then the head."""
        limit, head = steps.power_limit(self._accel), self._cluster.head.name
        outcomes: dict[str, Outcome] = {}
        on = sorted(self._bed.running, key=lambda name: name == head)
        with self._progress.board("switching off", on) as board:
            for group in ([n for n in on if n != head], [n for n in on if n == head]):
                outcomes |= self._bed.power_off(group, limit=limit, board=board)
        for name, outcome in outcomes.items():
            failed = isinstance(outcome, RehearsalError)
            took = outcome.message if isinstance(outcome, RehearsalError) else outcome
            if failed or self._actors[name].record.error is None:
                steps.switched_off(self._actors[name].record, limit, took)

    def _each(
        self, title: str, names: Sequence[str], job: Callable[[str], str]
    ) -> dict[str, RehearsalError]:
        """Do `job` for each node; interrupted, everything is cut off: who waits in ssh would not hear of it."""
        title = f"{title} {len(names)} node{'s' * (len(names) != 1)}"
        return each(title, names, job, progress=self._progress, interrupted=self._bed.cut)
