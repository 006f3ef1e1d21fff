#!/usr/bin/python3 -IS
"""`mpirun` and `mpicc` for tests of the smoke test: nodes are names, and things go wrong as scenario.json says."""

import itertools
import json
import os
import sys
import time
from pathlib import Path

FAKE = Path(os.environ["FAKE"])
NODE = os.environ.get("NODE") or (FAKE / "head").read_text()


def say(**words):
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


def hosts(argv):
    """Name -> slots, of the hostfile that is asked for or of the cluster's."""
    text = (FAKE / "hostfile").read_text()
    for option, value in itertools.pairwise(argv):
        if option in ("--hostfile", "-f"):
            text = Path(value).read_text()
    pairs = (line.replace(" slots=", ":").split(":") for line in text.splitlines())
    return {name: int(slots) for name, slots in pairs}


def carry(interface, count):
    """Bytes of an interface, on every node."""
    for path in FAKE.glob("root/*/proc/net/dev"):
        rows = [line.split() for line in path.read_text().splitlines()]
        for row in rows:
            if row[0] == f"{interface}:":
                row[9] = str(int(row[9]) + count)
        whole = path.with_name(f"dev.{os.getpid()}")  # several of us run at once, and read it
        whole.write_text("".join(" ".join(row) + "\n" for row in rows))
        whole.replace(path)


def program(nodes, scenario):
    """What the C program would say."""
    ranks = [name for name, slots in nodes.items() for _ in range(slots)]
    for rank, name in enumerate(ranks):
        say(rank=rank, size=len(ranks), node=name)
    for phase in ("reach", "allreduce", "broadcast", "all-to-all", "ring", "pairs"):
        say(phase=phase)
        if scenario.get("hang") == phase:
            time.sleep(100)
        if phase not in ("reach", "pairs"):
            wrong = [0] if scenario.get("wrong") == phase else []
            say(check=phase, expected=1, found=1, wrong=wrong)
    for one, other in itertools.combinations(nodes, 2):
        say(**{"from": one, "to": other, "latency_us": 80.0, "bandwidth_mib_s": 100.0})
    for interface in scenario.get("interfaces", ["eth0", "end0"]):
        carry(interface, 50 << 20)
    say(phase="end")


def main(argv):
    scenario = json.loads((FAKE / "scenario.json").read_text())
    if argv == ["--version"]:
        version = (FAKE / "root" / NODE / "version").read_text()
        sys.stdout.write(f"mpirun (Open MPI) {version}\n")
        return
    nodes = hosts(argv)
    for name in scenario.get("broken", []):
        if name in nodes:
            sys.exit(f"ssh: connect to host {name} port 22: Connection refused")
    if set(scenario.get("apart", ["?"])) <= set(nodes):
        sys.exit(
            "--------\nAt least one pair of MPI processes are unable to reach\neach other.\n\nMore.\n--------"
        )
    if argv[-2:] == ["uname", "-n"]:
        for name, slots in nodes.items():
            sys.stdout.write(f"{name}\n" * (slots - scenario.get("fewer", {}).get(name, 0)))
        return
    (FAKE / "program").write_text(json.dumps(argv))
    program(nodes, scenario)


if Path(sys.argv[0]).name == "mpicc":
    if json.loads((FAKE / "scenario.json").read_text()).get("compiler"):
        sys.exit("mpicc: error: no such file: mpi.h")
    Path(sys.argv[sys.argv.index("-o") + 1]).write_text("program\n")
else:
    main(sys.argv[1:])
