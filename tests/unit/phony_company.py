"""Programs that play QEMU and ssh for a rehearsal of several nodes; the switch is the real one."""

from __future__ import annotations

import copy
import json
import os
import time
from pathlib import Path

from phony import BOOT_START

from piimage.boot import qemu, testbed
from piimage.boot.disk import Disk
from piimage.boot.memory import Share
from piimage.boot.stage import Options, Stage
from piimage.boot.wiring import wires
from piimage.disk import fat
from piimage.progress import Quiet
from piimage.resolve import load
from piimage.state.state import State

HERE = Path(__file__).parent
RECORDED = (HERE / "boot_node3.json").read_text()
CLUSTER = load(HERE.parents[1] / "cluster.yaml", env={}).cluster

#: `$play/NODE.does` holds what a node does besides: panic, hang, stubborn (deaf to its button), leave (once asked).
#: With a script in init's place it ends by itself, once a second node has begun.
QEMU = r"""#!/bin/sh
play=%(play)s
case "$*" in
*"-M none"*)
	[ -e $play/gateway.fails ] && { echo 'qemu-system-aarch64: could not set up host forwarding' >&2; exit 1; }
	echo '{"QMP": {}}'
	echo $$ >$play/gateway.pid
	exec cat >/dev/null ;;
esac
for word; do case $word in file,id=console,path=*) console=${word##*path=} ;; esac; done
name=$(basename "$(dirname "$console")")
echo $$ >$play/$name.pid
echo $name >>$play/started
printf '%%s\n' "$@" >$play/$name.argv
does=$(cat $play/$name.does 2>/dev/null)
echo "booting $name" >>$console
case $does in
panic) echo 'Kernel panic - not syncing: no root' >>$console; exec sleep 60 ;;
hang) exec sleep 60 ;;
esac
case "$*" in
*init=*)
	echo "begin $name" >>$play/turns
	while [ "$(grep -c begin $play/turns)" -lt 2 ]; do sleep 0.02; done
	echo "end $name" >>$play/turns
	exit 0 ;;
esac
echo "$name login: " >>$console
: >$play/$name.up
[ "$does" = leave ] && { while [ ! -e $play/$name.commands ]; do sleep 0.02; done; exit 0; }
while read -r line; do
	echo "$line" >>$play/$name.qmp
	case $line in
	*powerdown*) [ "$does" = stubborn ] || { echo $name >>$play/off; exit 0; } ;;
	esac
done
"""
#: Gives the card as its first start leaves it.
QEMU_IMG = """\
#!/bin/sh
[ "$1" != convert ] || { for last; do :; done; cp %(play)s/after.img "$last"; }
"""
SSH = r"""#!/bin/sh
play=%(play)s name=$4 command=$5
echo "$command" >>$play/$name.commands
[ -e $play/$name.up ] || exit 255
case $command in
"python3 -")
	cat >$play/$name.asked
	[ -e $play/$name.slow ] && { while kill -0 "$(cat $play/gateway.pid)"; do sleep 0.1; done; exit 255; }
	[ "$(cat $play/$name.does 2>/dev/null)" = leave ] && sleep 0.5
	cat $play/$name.facts ;;
"sh -s -- "*)
	cat >$play/$name.script
	[ -e $play/$name.refuses ] && { echo 'sudo: a password is required' >&2; exit 1; }
	echo 'in use, written to' ;;
"piimage-smoke --json"*)
	cat >/dev/null
	cat $play/smoke.json
	exit "$(cat $play/smoke.status)" ;;
esac
"""


class Company:
    """A play of the sample's first `count` nodes in `place`."""

    def __init__(self, place, phony, monkeypatch, count):
        self.place, self.play = place, place / "play"
        self.play.mkdir()
        self.output = place / "dist"
        self.nodes = CLUSTER.nodes[:count]
        self.names = [node.name for node in self.nodes]
        fat.write_files(phony, BOOT_START, {"vmlinuz": b"K", "initrd.img": b"I"})
        self.disk = Disk(image=phony, build="0123456789ab")
        self._tools(monkeypatch)
        state = place / "state"
        state.mkdir()
        (state / "ca.pub").write_text("ssh-ed25519 AAAA pico5 host CA\n")
        self.options = Options(timeout=20, memory=Share(512))
        self.stages = [
            Stage(cluster=CLUSTER, node=node, disk=self.disk, state=State(state), asked=(),
                  progress=Quiet(), options=self.options)
            for node in self.nodes
        ]  # fmt: skip
        for node in self.nodes:
            (self.play / f"{node.name}.facts").write_text(json.dumps(self.facts(node)))
        self.smoke(smoke_report(self.nodes))

    def _tools(self, monkeypatch):
        tools = self.place / "bin"
        tools.mkdir()
        programs = {"qemu-system-aarch64": QEMU, "ssh": SSH, "qemu-img": QEMU_IMG}
        for name, text in programs.items():
            (tools / name).write_text(text % {"play": self.play})
            (tools / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
        monkeypatch.setattr(qemu, "PAUSE", 0.02)
        monkeypatch.setattr(testbed.qemu, "PAUSE", 0.02)

    def facts(self, node):
        """What a node says of itself that keeps all promises: recorded from node3 of the sample."""
        text = RECORDED.replace("node3", node.name).replace("10.1.10.243", str(node.address.ip))
        facts = copy.deepcopy(json.loads(text))
        wire = wires(CLUSTER, self.nodes, [1] * len(self.nodes), self.place)[node.name]
        macs = {"02:a9:f4:5a:22:2f": wire.mac, "02:9b:3c:c4:22:05": wire.other_mac}
        for link in facts["addresses"]:
            link["address"] = macs.get(link.get("address"), link.get("address"))
        facts["clock"] |= {"now": int(time.time()), "serves": node.role.head}
        if node.role.head:
            facts["secrets"]["looked_for"].append("private cluster key")
        facts["checks"] = [
            {"name": f"reaches {other.name}", "status": 0, "stdout": "SSH-\n", "stderr": ""}
            for other in self.nodes
        ]
        return facts

    def does(self, name, what):
        (self.play / f"{name}.does").write_text(what)

    def restarts(self, script):
        """All cards have the script in init's place, which takes itself out of the command line."""
        after = self.play / "after.img"
        after.write_bytes(self.disk.image.read_bytes())
        fat.write_files(after, BOOT_START, {"cmdline.txt": b"root=b\n"})
        fat.write_files(self.disk.image, BOOT_START, {"cmdline.txt": f"root=a {script}\n".encode()})

    def smoke(self, report, status=None):
        (self.play / "smoke.json").write_text(json.dumps(report))
        known = 0 if report.get("ok") else 1
        (self.play / "smoke.status").write_text(str(known if status is None else status))

    def said(self, name):
        """Lines of a file of the play; none if it is not there."""
        path = self.play / name
        return path.read_text().splitlines() if path.exists() else []

    def pids(self):
        """Of everything that was started."""
        return [int(path.read_text()) for path in self.play.glob("*.pid")]


def smoke_report(nodes, *, ok=True):
    """What `piimage-smoke --json` says."""
    names = [node.name for node in nodes]
    checks = [
        {"name": "user", "ok": ok, "expected": "1000", "found": "1000" if ok else "1002"},
        {"name": "temperature", "ok": None, "expected": None, "found": "48 C"},
        {"name": "throttled", "ok": None, "expected": "0x0", "found": None},
    ]
    pairs = [
        {
            "from": a,
            "to": b,
            "latency_us": 100.0 + 37 * (x + 2 * y),
            "bandwidth_mib_s": 11.5 + x * y,
        }
        for x, a in enumerate(names)
        for y, b in enumerate(names)
        if x < y
    ]
    return {
        "version": 1, "ok": ok, "cluster": "pico5", "started": 1795387040, "seconds": 31.5,
        "nodes": [
            {"name": n.name, "address": str(n.address.ip), "ok": ok, "checks": checks} for n in nodes
        ],
        "mpi": {
            "flavour": "openmpi", "version": "5.0.7", "ranks": 4 * len(names),
            "slots": dict.fromkeys(names, 4), "ok": ok,
            "checks": [{"name": "allreduce", "ok": True, "expected": "78", "found": "78"}],
        },
        "pairs": pairs,
        "traffic": [
            {
                "node": n, "wired": {"interface": "eth0", "tx_bytes": 90 << 20, "rx_bytes": 80 << 20},
                "other": [{"interface": "eth1", "tx_bytes": 3000, "rx_bytes": 1200}],
            }
            for n in names
        ],
        "failures": [] if ok else ["node1: uid of federico is 1002, expected 1000 <&>"],
    }  # fmt: skip
