"""The scripts of ~/bin: where they are put, and what they do with nodes that answer, refuse or are down."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import phony_facts as phony
import pytest

from piimage.cluster import Ssh
from piimage.components import tools
from piimage.delta import Directory, Symlink

pytestmark = pytest.mark.processes

GUEST = Path(__file__).parents[2] / "piimage/guest"
SCRIPTS = sorted((GUEST / "bin").iterdir())
EVERYTHING = {"genkeys", "resize", "restartall", "stopall", "testall", "testssh"}
NODES = ("node0", "node1", "node2", "node3")


def names(part, place):
    return {p.rpartition("/")[2] for p in part.delta.entries if p.startswith(f"{place}/")}


def image(role=phony.HEAD, **more):
    return tools.image(phony.cluster(**more), role, phony.debian())


def test_the_head_has_all_of_them_on_the_path():
    part = image()
    entries = part.delta.entries

    assert names(part, "/home/federico/bin") == EVERYTHING
    assert names(part, "/usr/local/bin") == EVERYTHING - {"resize"}
    assert entries["/home/federico/bin"] == Directory(0o755, 1000, 1000)
    assert entries["/home/federico/bin/stopall"] == Symlink(
        "/usr/lib/piimage/bin/stopall", 1000, 1000
    )
    assert entries["/usr/lib/piimage/bin/stopall"].mode == 0o755
    assert entries["/home/federico/nodes"] == Symlink("/etc/piimage/nodes", 1000, 1000)
    assert names(part, "/usr/lib/piimage/lib") == {"cluster.sh", "node.sh", "ping.sh", "power.sh"}
    assert entries["/etc/sysctl.d/60-piimage-ping.conf"].content.startswith(
        b"net.ipv4.ping_group_range"
    )


def test_a_worker_has_what_is_of_use_there():
    assert names(image(phony.WORKER), "/home/federico/bin") == {"resize"}
    assert names(image(phony.WORKER, ssh=Ssh(trust="mesh")), "/home/federico/bin") == EVERYTHING


def test_parallel_ssh_where_there_is_somebody_to_talk_to():
    assert tools.packages(phony.cluster(), phony.HEAD) == ("growpart", "parallel-ssh")
    assert tools.packages(phony.cluster(), phony.WORKER) == ("growpart",)
    assert tools.packages(phony.cluster(count=1), phony.HEAD) == ("growpart",)


def test_every_script_is_a_script():
    assert {path.name for path in SCRIPTS} == EVERYTHING
    for path in SCRIPTS:
        assert path.read_text().startswith("#!/bin/sh\n# ")


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_no_complaint():
    files = [*SCRIPTS, *sorted((GUEST / "lib").iterdir())]

    done = subprocess.run(
        ["shellcheck", "--shell=sh", "-x", "-P", "SCRIPTDIR", *files],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.stdout == ""


SSH = """\
while :; do case $1 in -T | --) shift ;; -o) shift 2 ;; *) break ;; esac; done
node=$1; shift
[ "$node" != -- ] || shift
echo "$node $*" >>"$FAKE/asked"
[ ! -e "$FAKE/down/$node" ] || { echo "ssh: connect to host $node port 22: No route to host" >&2; exit 255; }
export NODE="$node" HOME="$FAKE/home/$node"
mkdir -p "$HOME"
exec sh -c "$*"
"""
TOOLS = {
    "ssh": SSH,
    "hostname": 'echo "${NODE:-node0}"',
    "getent": 'f="$FAKE/names/${NODE:-node0}/$2"; [ -e "$f" ] && cat "$f" || echo "10.1.10.1 STREAM $2"',
    "sha256sum": 'f="$FAKE/hosts/${NODE:-node0}"; [ ! -e "$f" ] || exec <"$f"; exec /usr/bin/sha256sum',
    "ping": """\
for last; do :; done
if [ -e "$FAKE/alive/$last" ]; then
    n=$(cat "$FAKE/alive/$last"); [ "$n" -gt 0 ] || exit 1
    echo $((n - 1)) >"$FAKE/alive/$last"
fi
[ ! -e "$FAKE/mute/${NODE:-node0}" ] || exit 1
echo "rtt min/avg/max/mdev = 0.1/0.25/0.3/0 ms"
""",
    "sudo": '[ "$1" = -n ] && shift; [ ! -e "$FAKE/refuses/${NODE:-node0}" ] || '
    '{ echo "sudo: a password is required" >&2; exit 1; }; exec "$@"',
    "systemctl": 'echo "${NODE:-node0} $*" >>"$FAKE/done"; echo 0 >"$FAKE/alive/${NODE:-node0}"',
    "vcgencmd": 'echo "throttled=0x50000"',
    "sleep": "exec /bin/sleep 0.01",
}


class Cluster:
    def __init__(self, place):
        self.place = place
        for folder in ("bin", "down", "alive", "refuses", "mute", "hosts", "names", "home/node0"):
            (place / folder).mkdir(parents=True)
        for name, body in TOOLS.items():
            tool = place / "bin" / name
            tool.write_text(f"#!/bin/sh\n{body}\n")
            tool.chmod(0o755)
        # As it is before the first boot has taken the padding off.
        (place / "nodes").write_text("".join(f"{name}\n" for name in NODES) + "\n" * 100)
        (place / "cluster.json").write_text(
            '{\n "cluster": "lab",\n "head": "node0",\n "uid": 1\n}\n'
        )

    def run(self, script, *words, **more):
        env = {
            "PATH": f"{self.place}/bin:{os.environ['PATH']}",
            "FAKE": str(self.place), "HOME": str(self.place / "home/node0"),
            "PIIMAGE_NODES": str(self.place / "nodes"), "PIIMAGE_ROSTER": str(self.place / "cluster.json"),
            "PIIMAGE_WAIT": "2", **more,
        }  # fmt: skip
        done = subprocess.run(
            [GUEST / "bin" / script, *words], env=env, capture_output=True, text=True, timeout=60, check=False
        )  # fmt: skip
        return done.returncode, done.stdout.splitlines(), done.stderr

    def log(self, name):
        path = self.place / name
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def cluster(tmp_path):
    return Cluster(tmp_path)


@pytest.mark.parametrize(("script", "action"), [("stopall", "poweroff"), ("restartall", "reboot")])
def test_all_go_the_last_one_first_and_the_head_last(cluster, script, action):
    status, out, _ = cluster.run(script)

    order = ["node3", "node2", "node1", "node0"]
    assert (status, out) == (0, [f"{node}: {action}" for node in order])
    assert cluster.log("done") == [f"{node} --no-block {action}" for node in order]


def test_the_head_waits_for_the_others(cluster):
    systemctl = cluster.place / "bin/systemctl"
    systemctl.write_text(
        '#!/bin/sh\nn=${NODE:-node0}; echo "$n" >>"$FAKE/done"; echo 3 >"$FAKE/alive/$n"\n'
    )

    status, _, _ = cluster.run("stopall", PIIMAGE_WAIT="30")

    assert status == 0
    assert [cluster.log(f"alive/{node}") for node in ("node1", "node2", "node3")] == [["0"]] * 3


def test_who_stays_is_named_and_the_head_goes_all_the_same(cluster):
    systemctl = cluster.place / "bin/systemctl"
    systemctl.write_text(
        '#!/bin/sh\nn=${NODE:-node0}; [ $n = node2 ] && f=99; echo ${f:-0} >"$FAKE/alive/$n"\n'
    )

    status, out, _ = cluster.run("stopall")

    assert (status, out[-2:]) == (0, ["still there after 2 s: node2", "node0: poweroff"])


def test_a_dry_run_asks_nobody(cluster):
    for flag in ("-n", "--dry-run"):
        status, out, _ = cluster.run("stopall", flag)
        assert (status, out[0], out[-1]) == (0, "node3: would shut down", "node0: would shut down")
    assert cluster.log("asked") == []


def test_a_node_that_is_down_holds_nobody_up(cluster):
    (cluster.place / "down/node2").touch()

    status, out, _ = cluster.run("stopall")

    assert status == 0
    assert out[1] == "node2: no answer, left as it is"
    assert [line.split()[0] for line in cluster.log("done")] == ["node3", "node1", "node0"]


def test_a_node_that_refuses_keeps_the_head_up_unless_forced(cluster):
    (cluster.place / "refuses/node1").touch()

    status, out, errors = cluster.run("stopall")
    assert (status, out[-1]) == (1, "node1: refuses: sudo: a password is required")
    assert errors == "stopall: node0 stays up for node1; -f goes on all the same\n"
    assert "node0 --no-block poweroff" not in cluster.log("done")

    assert cluster.run("stopall", "-f")[0] == 0
    assert cluster.log("done")[-1] == "node0 --no-block poweroff"


def test_stopping_is_for_the_head(cluster):
    status, _, errors = cluster.run("stopall", NODE="node1")

    assert (status, errors) == (1, "stopall: run this on node0, which goes last\n")
    assert cluster.run("stopall", "--all")[0] == 2
    assert cluster.log("done") == []


def test_testssh_has_a_line_for_each(cluster):
    assert cluster.run("testssh")[:2] == (
        0, ["node0            here", "node1            ok", "node2            ok", "node3            ok"],
    )  # fmt: skip

    (cluster.place / "down/node2").touch()
    status, out, _ = cluster.run("testssh")
    assert status == 1
    assert out[2] == "node2            FAILED  ssh: connect to host node2 port 22: No route to host"


def test_testall_is_a_table(cluster):
    status, out, errors = cluster.run("testall")

    assert (status, errors) == (0, "")
    assert out[0].split() == ["node", "hosts", "ping", "node0", "names", "temp", "throttled"]
    assert [line.split()[0] for line in out[1:]] == list(NODES)
    for line in out[1:]:
        words = line.split()
        assert words[1:5] == ["ok", "0.25", "ms", "ok"]
        assert words[-1] == "0x50000"


def test_testall_finds_each_kind_of_damage(cluster):
    (cluster.place / "hosts/node1").write_text("10.1.10.9 node0\n")
    (cluster.place / "names/node2").mkdir()
    (cluster.place / "names/node2/node3").write_text("10.9.9.9 STREAM node3\n")
    (cluster.place / "mute/node2").touch()
    (cluster.place / "down/node3").touch()

    status, out, _ = cluster.run("testall")

    assert status == 1
    assert out[2].split()[:2] == ["node1", "differs"]
    assert out[3].split()[:4] == ["node2", "ok", "FAILED", "differs"]
    assert (
        out[4] == "node3            no answer: ssh: connect to host node3 port 22: No route to host"
    )


def test_testall_says_what_a_ping_found(cluster):
    lost = "1 packets transmitted, 0 received, 100% packet loss, time 0ms"
    ping = cluster.place / "bin/ping"
    ping.write_text(
        '#!/bin/sh\n[ "${NODE:-node0}" != node1 ] || {'
        f' echo "--- node0 ping statistics ---"; echo "{lost}"; exit 1; }}\n'
        '[ "${NODE:-node0}" != node2 ] || { echo "ping: node0: Name or service not known" >&2; exit 2; }\n'
        'echo "rtt min/avg/max/mdev = 0.1/0.25/0.3/0 ms"\n'
    )

    status, out, _ = cluster.run("testall")

    assert status == 1
    assert [line.split()[2] for line in out[1:5]] == ["0.25", "FAILED", "FAILED", "0.25"]
    assert out[5:] == [
        "node1: ping node0: no answer within 3 s",
        "node2: ping node0: ping: node0: Name or service not known",
    ]


@pytest.mark.parametrize(
    "ping",
    [None, "#!/bin/sh\necho 'ping: socktype: SOCK_RAW\nping: socket: Operation not permitted' >&2; exit 2\n"],
    ids=["not installed", "not permitted"],
)  # fmt: skip
def test_without_ping_the_ssh_server_is_asked(cluster, ping):
    only = cluster.place / "only"
    only.mkdir()
    for name in ("sh", "awk", "cat", "cut", "dirname", "grep", "head", "mktemp", "readlink", "rm", "sed",
                 "sha256sum", "tail"):  # fmt: skip
        (only / name).symlink_to(shutil.which(name))
    tool = cluster.place / "bin/ping"
    tool.unlink()
    if ping:
        tool.write_text(ping)
        tool.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        # The connection goes to a port of ours and not to 22.
        python = cluster.place / "bin/python3"
        text = f'script=$3; shift 3; exec /usr/bin/python3 -IS -c "$(echo "$script" | sed s/22/{port}/)" 127.0.0.1 3'
        python.write_text(f"#!/bin/sh\n{text}\n")
        python.chmod(0o755)
        status, out, errors = cluster.run("testall", PATH=f"{cluster.place}/bin:{only}")

    assert (status, errors, out[5:]) == (
        0, "", ["* no ping to be had there: the time until the ssh server answered"],
    )  # fmt: skip
    assert all(re.search(r" [0-9.]+ ms\* ", line) for line in out[1:5])


def test_the_head_waits_for_the_others_without_ping_too(cluster):
    """A missing ping is no sign that a node has gone."""
    (cluster.place / "bin/ping").write_text(
        "#!/bin/sh\necho 'ping: Operation not permitted'; exit 2\n"
    )
    python = cluster.place / "bin/python3"
    python.write_text('#!/bin/sh\n[ "$4" != node2 ] || exec echo "0.9 ssh"\nexit 1\n')
    python.chmod(0o755)

    status, out, _ = cluster.run("stopall")

    assert (status, out[-2:]) == (0, ["still there after 2 s: node2", "node0: poweroff"])


def test_genkeys_makes_a_key_once_and_every_node_takes_it_once(cluster):
    (cluster.place / "down/node3").touch()
    (cluster.place / "home/node1/.ssh").mkdir(parents=True)
    (cluster.place / "home/node1/.ssh/authorized_keys").write_text("ssh-ed25519 AAAA other")

    status, out, _ = cluster.run("genkeys")
    assert (status, out[-1]) == (1, "node3            FAILED")
    (cluster.place / "down/node3").unlink()
    status, out, _ = cluster.run("genkeys")
    assert (status, out) == (0, [f"{node:16} ok" for node in NODES])

    home = cluster.place / "home"
    key = (home / "node0/.ssh/id_ed25519.pub").read_text()
    assert (home / "node0/.ssh/id_ed25519").stat().st_mode & 0o777 == 0o600
    assert (home / "node1/.ssh/authorized_keys").read_text() == f"ssh-ed25519 AAAA other\n{key}"
    for node in ("node0", "node2", "node3"):
        assert (home / node / ".ssh/authorized_keys").read_text() == key
        assert (home / node / ".ssh/authorized_keys").stat().st_mode & 0o777 == 0o600


RESIZE = {
    "findmnt": """\
case "$*" in
*SOURCE*) echo /dev/mmcblk0p2 ;;
*FSTYPE*) cat "$FAKE/type" ;;
*SIZE*) cat "$FAKE/size" ;;
esac""",
    "growpart": 'echo "$*" >>"$FAKE/done"; cat "$FAKE/grow"; exit "$(cat "$FAKE/grown")"',
    "resize2fs": 'echo "resize2fs $*" >>"$FAKE/done"; echo 31000000000 >"$FAKE/size"',
    "xfs_growfs": 'echo "xfs_growfs $*" >>"$FAKE/done"',
    "sudo": 'shift; exec "$@"',
}


@pytest.fixture
def card(cluster):
    """A root file system on the second partition of a card."""
    for name, body in RESIZE.items():
        tool = cluster.place / "bin" / name
        tool.write_text(f"#!/bin/sh\n{body}\n")
        tool.chmod(0o755)
    device = cluster.place / "sys/devices/mmc/block/mmcblk0/mmcblk0p2"
    device.mkdir(parents=True)
    (device / "partition").write_text("2\n")
    block = cluster.place / "sys/class/block"
    block.mkdir(parents=True)
    (block / "mmcblk0p2").symlink_to(device)
    for name, text in {
        "type": "ext4",
        "size": "3000000000",
        "grow": "CHANGED",
        "grown": "0",
    }.items():
        (cluster.place / name).write_text(text)
    return lambda: cluster.run("resize", PIIMAGE_SYS=str(cluster.place / "sys"))


def test_resize_grows_partition_and_file_system(card, cluster):
    assert card() == (0, ["/ on /dev/mmcblk0p2: 2861 MiB, now 29563 MiB"], "")
    assert cluster.log("done") == ["/dev/mmcblk0 2", "resize2fs /dev/mmcblk0p2"]


def test_resize_does_nothing_when_it_is_done(card, cluster):
    (cluster.place / "size").write_text("31000000000")
    (cluster.place / "grow").write_text("NOCHANGE: partition 2 is size 60.")
    (cluster.place / "grown").write_text("1")

    assert card() == (0, ["/ on /dev/mmcblk0p2: nothing to do, 29563 MiB"], "")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"grown": "2", "grow": "FAILED: sfdisk"}, "growpart /dev/mmcblk0 2: FAILED: sfdisk"),
        ({"type": "f2fs"}, "a file system of type f2fs is not grown by this"),
    ],
)
def test_resize_says_why_it_cannot(card, cluster, files, words):
    for name, text in files.items():
        (cluster.place / name).write_text(text)

    status, _, errors = card()

    assert (status, errors) == (1, f"resize: {words}\n")


@pytest.fixture
def volume(card, cluster):
    """The root in a logical volume on that partition."""
    cluster.place.joinpath("type").write_text("xfs")
    (cluster.place / "free").write_text("  6200\n")
    bodies = {
        "findmnt": RESIZE["findmnt"].replace("/dev/mmcblk0p2", "/dev/mapper/fedora-root"),
        "readlink": 'case "$2" in /dev/mapper/*) echo /dev/dm-0 ;; *) exec /usr/bin/readlink "$@" ;; esac',
        "pvresize": 'echo "pvresize $*" >>"$FAKE/done"',
        "lvs": 'cat "$FAKE/free"',
        "lvextend": 'echo "lvextend $*" >>"$FAKE/done"; exit "$(cat "$FAKE/extended")"',
        "xfs_growfs": 'echo "xfs_growfs $*" >>"$FAKE/done"; echo 31000000000 >"$FAKE/size"',
    }
    for name, body in bodies.items():
        tool = cluster.place / "bin" / name
        tool.write_text(f"#!/bin/sh\n{body}\n")
        tool.chmod(0o755)
    (cluster.place / "extended").write_text("0")
    mapped = cluster.place / "sys/class/block/dm-0"
    (mapped / "dm").mkdir(parents=True)
    (mapped / "dm/uuid").write_text("LVM-abcdef\n")
    (mapped / "slaves/mmcblk0p2").mkdir(parents=True)
    return card


def test_resize_grows_a_logical_volume_from_the_partition_up(volume, cluster):
    assert volume() == (0, ["/ on /dev/mapper/fedora-root: 2861 MiB, now 29563 MiB"], "")
    assert cluster.log("done") == [
        "/dev/mmcblk0 2",
        "pvresize /dev/mmcblk0p2",
        "lvextend -l +100%FREE /dev/mapper/fedora-root",
        "xfs_growfs /",
    ]


def test_resize_leaves_a_volume_without_room_alone(volume, cluster):
    (cluster.place / "free").write_text("  0\n")

    assert volume()[0] == 0
    assert [line.split()[0] for line in cluster.log("done")[1:]] == ["pvresize", "xfs_growfs"]


def test_resize_says_that_a_volume_does_not_grow(volume, cluster):
    (cluster.place / "extended").write_text("5")

    assert volume()[2] == "resize: lvextend /dev/mapper/fedora-root: \n"


def test_resize_of_a_root_that_is_no_partition(card, cluster):
    shutil.rmtree(cluster.place / "sys/devices")

    assert card() == (1, [], "resize: / is on /dev/mmcblk0p2, which is no partition\n")
