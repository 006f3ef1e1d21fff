"""Shares: what a server exports, what a client mounts, and that no boot or shutdown waits for either."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import replace
from ipaddress import IPv4Address

import phony_facts as phony
import pytest
from delta_files import file_at
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from piimage.cluster import Share
from piimage.components import nfs, nfs_release, units
from piimage.components.unit_text import literal, unit_name
from piimage.delta import Directory, File
from piimage.errors import UnsupportedError
from piimage.facts import Unit

CLUSTER = Share(path="/srv/cluster", server="node0", owner="federico")
DATA = Share(path="/srv/my-data", server="node2", owner="ops", mode=0o2775)
HEAD = replace(phony.HEAD, serves=("/srv/cluster",))
SERVER = replace(phony.WORKER, serves=("/srv/my-data",))
UNITS = "/etc/systemd/system"


def image(role=phony.WORKER, *, facts=None, shares=(CLUSTER, DATA), **more):
    return nfs.image(phony.cluster(shares=shares, **more), role, facts or phony.with_nfs())


def content(part, path):
    return file_at(part.delta.entries, path).content.decode()


def test_a_cluster_without_shares_wants_nothing():
    assert image(shares=(), facts=phony.debian()) == nfs.Contribution()
    assert nfs.packages(phony.cluster(), phony.HEAD) == ()


@pytest.mark.parametrize(
    ("role", "shares", "wanted"),
    [
        (phony.WORKER, (CLUSTER,), ("nfs-client",)),
        (HEAD, (CLUSTER,), ("nfs-server",)),
        (HEAD, (CLUSTER, DATA), ("nfs-server", "nfs-client")),
    ],
)
def test_packages_follow_from_who_serves(role, shares, wanted):
    assert nfs.packages(phony.cluster(shares=shares), role) == wanted


def test_the_servers_files():
    part = image(HEAD, shares=(CLUSTER,))

    assert content(part, "/etc/exports.d/piimage.exports") == (
        "/srv/cluster 10.1.10.0/24(rw,sync,no_subtree_check)\n"
    )
    assert content(part, "/etc/nfs.conf.d/10-piimage.conf") == (
        "[nfsd]\nvers3=n\nlease-time=30\ngrace-time=30\n"
    )
    assert content(part, "/etc/sysctl.d/60-piimage-nfs.conf") == "fs.leases-enable = 0\n"
    assert part.delta.entries["/srv/cluster"] == Directory(0o755, 1000, 1000)
    assert part.enable == ("nfs-server.service",)
    assert not [path for path in part.delta.entries if "mount" in path]


def test_the_clients_files():
    part = image(shares=(CLUSTER,))

    assert (
        content(part, f"{UNITS}/srv-cluster.mount")
        == """\
[Unit]
Description=Share /srv/cluster of node0
StartLimitIntervalSec=0

[Mount]
What=10.1.10.240:/srv/cluster
Where=/srv/cluster
Type=nfs4
Options=rw,hard,nosuid,nodev,timeo=100,lookupcache=positive
TimeoutSec=30
"""
    )
    assert (
        content(part, f"{UNITS}/srv-cluster.automount")
        == """\
[Unit]
Description=Share /srv/cluster of node0, when used

[Automount]
Where=/srv/cluster

[Install]
WantedBy=multi-user.target
"""
    )
    assert (
        content(part, f"{UNITS}/piimage-release-shares.service")
        == """\
[Unit]
Description=Let go of shares at shutdown when their server is gone
After=network.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStop=/usr/lib/piimage/release-shares /srv/cluster
TimeoutStopSec=100

[Install]
WantedBy=multi-user.target
"""
    )
    assert part.delta.entries["/srv/cluster"] == Directory(0o755, 0, 0)
    assert part.enable == ("piimage-release-shares.service", "srv-cluster.automount")
    assert not [path for path in part.delta.entries if "export" in path or "nfs.conf" in path]


def test_a_server_that_is_not_the_head_exports_its_own_and_mounts_the_others():
    part = image(SERVER)

    assert content(part, "/etc/exports.d/piimage.exports").startswith("/srv/my-data 10.1.10.0/24(")
    assert part.delta.entries["/srv/my-data"] == Directory(0o2775, 1001, 1001)
    assert f"{UNITS}/srv-cluster.mount" in part.delta.entries
    assert rf"{UNITS}/srv-my\x2ddata.mount" not in part.delta.entries


def test_nothing_is_mounted_but_by_automount():
    part = image()
    text = "".join(e.content.decode() for _, e in part.delta if isinstance(e, File))

    assert not part.mounts
    assert not [name for name in part.enable if name.endswith(".mount")]
    assert not re.search(r"\bsoft", text)
    assert rf"{UNITS}/srv-my\x2ddata.automount" in part.delta.entries


def test_only_version_4_so_no_port_mapper():
    part = image(HEAD)

    assert part.mask == (
        "rpcbind.service",
        "rpcbind.socket",
        "rpc-statd.service",
        "rpc-statd-notify.service",
        "nfs-blkmap.service",
    )
    few = replace(phony.with_nfs(), units={"nfs-client.target": Unit(path="/x")})
    assert image(facts=few).mask == ()


def test_an_owner_of_root():
    part = image(HEAD, shares=(replace(CLUSTER, owner="root"),))

    assert part.delta.entries["/srv/cluster"] == Directory(0o755, 0, 0)


@pytest.mark.parametrize(
    ("role", "gone", "words"),
    [(HEAD, "nfs-server.service", "NFS server"), (phony.WORKER, "nfs-client.target", "NFS client")],
)
def test_a_base_without_the_packages_is_refused(role, gone, words):
    facts = phony.with_nfs()
    facts = replace(facts, units={k: u for k, u in facts.units.items() if k != gone})

    with pytest.raises(UnsupportedError, match=words):
        image(role, facts=facts, shares=(CLUSTER,))


def without_nfs_conf():
    facts = phony.with_nfs()
    return replace(facts, files={k: f for k, f in facts.files.items() if k != "/etc/nfs.conf"})


def test_a_server_that_reads_no_nfs_conf_is_told_by_its_variables():
    """nfs-utils 1.3 in bullseye and buster; `--manage-gids` is Debian's."""
    facts = without_nfs_conf()
    facts = replace(facts, units={**facts.units, "nfs-config.service": phony.service("x.service")})
    stock = 'RPCNFSDCOUNT=8\nRPCMOUNTDOPTS="--manage-gids"\n'
    facts = phony.with_files(facts, {"/etc/default/nfs-kernel-server": phony.text(stock)})

    part = image(HEAD, facts=facts)

    assert content(part, "/etc/default/nfs-kernel-server") == (
        "RPCNFSDCOUNT=8\n"
        'RPCMOUNTDOPTS="--manage-gids --no-nfs-version=2 --no-nfs-version=3"\n'
        'RPCNFSDOPTS="--no-nfs-version=3 --lease-time=30 --grace-time=30"\n'
    )
    assert not [path for path in part.delta.entries if "/etc/nfs.conf" in path]


def test_a_server_that_reads_neither_is_refused():
    with pytest.raises(UnsupportedError, match=r"neither /etc/nfs\.conf nor the unit nfs-config"):
        image(HEAD, facts=without_nfs_conf())


@pytest.mark.parametrize("role", [HEAD, phony.WORKER])
def test_a_share_in_the_place_of_a_file_is_refused(role):
    facts = phony.with_files(phony.with_nfs(), {"/srv/cluster": phony.link("/mnt/disk")})

    with pytest.raises(UnsupportedError, match="a link at `/srv/cluster`"):
        image(role, facts=facts)


def test_what_a_node_alone_is_asked_needs_no_other():
    for role in (HEAD, SERVER, phony.WORKER):
        alone = [check for check in image(role).checks if not check.needs_cluster]
        words = " ".join(" ".join(check.argv) for check in alone)
        assert not re.search(r"\b(ls|mount|stat|df)\b", words)
    names = [check.name for check in image().checks if check.needs_cluster]
    assert names == ["share /srv/cluster", "share /srv/my-data"]


def test_the_servers_check_reads_what_exportfs_wrote():
    check = next(c for c in image(HEAD).checks if c.name == "export of /srv/cluster")

    line = "/srv/cluster\t10.1.10.0/24(rw,sync,wdelay,hide,nocrossmnt,secure,root_squash)\n"
    assert re.search(check.expect, line, re.MULTILINE)
    assert not re.search(check.expect, line.replace("cluster", "cluster2"), re.MULTILINE)
    assert not re.search(check.expect, line.replace("rw", "ro"), re.MULTILINE)


def test_the_port_mapper_check_wants_silence():
    check = next(c for c in image().checks if c.name == "no port mapper")

    assert re.search(check.expect, "", re.MULTILINE)
    assert not re.search(check.expect, "tcp LISTEN 0 4096 0.0.0.0:111 0.0.0.0:*\n", re.MULTILINE)


def test_systemd_takes_the_units(tmp_path):
    part = image()
    script = tmp_path / "release-shares"
    script.write_text(content(part, "/usr/lib/piimage/release-shares"))
    script.chmod(0o755)
    made = []
    for path, entry in part.delta:
        if isinstance(entry, File) and path.startswith(UNITS):
            made.append(tmp_path / path.rpartition("/")[2])
            text = entry.content.decode().replace("/usr/lib/piimage/release-shares", str(script))
            made[-1].write_text(text)

    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *made],
        capture_output=True,
        text=True,
        check=False,
    )

    assert len(made) == 5
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_finds_fault_with_a_mount_of_another_name(tmp_path):
    path = tmp_path / "srv-other.mount"
    path.write_text(nfs.mount_text(CLUSTER, IPv4Address("10.1.10.240")))

    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True, check=False
    )

    assert done.returncode != 0


def test_presets_name_units_with_escapes_as_systemd_reads_them(tmp_path):
    part = image()
    entries = units.entries([part], part.delta, phony.with_nfs())
    files = {**part.delta.entries, units.PRESET: entries[units.PRESET]}
    for path, entry in files.items():
        if isinstance(entry, File):
            target = tmp_path / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(entry.content)

    subprocess.run(
        ["systemctl", f"--root={tmp_path}", "preset-all"], check=True, capture_output=True
    )

    wants = {path.name for path in (tmp_path / f"{UNITS[1:]}/multi-user.target.wants").iterdir()}
    assert {r"srv-my\x2ddata.automount", "srv-cluster.automount"} <= wants


#: systemd-escape(1) refuses a path whose unit could not have a name.
UNIT_NAME_MAX = 256
ODD = st.text(st.characters(blacklist_characters="/\0\n", blacklist_categories=["Cs"]), min_size=1)


@settings(max_examples=60, deadline=None)  # a process each
@given(st.lists(ODD.filter(lambda part: part not in (".", "..")), min_size=1, max_size=4))
def test_units_are_named_as_systemd_names_them(parts):
    path = "/" + "/".join(parts)
    assume(len(unit_name(path, ".mount")) < UNIT_NAME_MAX)
    argv = ["systemd-escape", "--path", "--", path]

    said = subprocess.run(argv, capture_output=True, check=True).stdout.decode().rstrip("\n")

    assert unit_name(path, ".mount") == f"{said}.mount"


def test_the_longest_share_that_is_accepted_still_names_a_unit():
    for path in ("/srv/" + "a" * 241, "/srv/" + "a-" * 48 + "b"):
        assert len(unit_name(path, ".automount")) == 255


def test_specifiers_are_taken_literally():
    assert literal("/srv/50%") == "/srv/50%%"
    assert unit_name("/", ".mount") == "-.mount"
    assert unit_name("/.a/.b", ".mount") == r"\x2ea-.b.mount"


# --- the script that runs at shutdown -----------------------------------------------------------------------

MOUNTINFO = """\
22 28 0:20 / /sys rw,relatime shared:7 - sysfs sysfs rw
71 28 0:44 / /srv/cluster rw,relatime shared:90 - autofs systemd-1 rw,fd=60
80 71 0:45 / /srv/cluster rw,nosuid,nodev shared:91 - nfs4 10.1.10.240:/srv/cluster rw,vers=4.2
"""
MOUNTSTATS = """\
device sysfs mounted on /sys with fstype sysfs
device 10.1.10.242:/srv/other mounted on /srv/other with fstype nfs4 statvers=1.1
\txprt:\ttcp 0 0 1 0 3 9 {others} 0 9 0 2 0 0
device 10.1.10.240:/srv/cluster mounted on /srv/cluster with fstype nfs4 statvers=1.1
\topts:\trw,vers=4.2
\txprt:\ttcp 829 1 1 0 4 21 {answers} 0 21 0 2 0 0
"""
#: `stat` ends as the file says; meanwhile the counters become those of another file, if it is there.
STAT = """\
#!/bin/sh
echo "stat $*" >>{node}/calls
[ ! -e {node}/later ] || cp {node}/later {node}/proc/mountstats
exit $(cat {node}/status)
"""


@pytest.fixture
def node(tmp_path, monkeypatch):
    """A node's /proc and /sys as files, and the programs that the script calls."""
    proc, sys = tmp_path / "proc", tmp_path / "sys"
    (sys / "0:45").mkdir(parents=True)
    (sys / "0:45/shutdown").write_text("0\n")
    proc.mkdir()
    (proc / "mountinfo").write_text(MOUNTINFO)
    (proc / "mountstats").write_text(MOUNTSTATS.format(answers=17, others=999))
    (tmp_path / "state").write_text("stopping")
    (tmp_path / "status").write_text("137")
    calls = tmp_path / "calls"
    calls.write_text("")
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    programs = {
        "systemctl": f"#!/bin/sh\ncat {tmp_path}/state\n",
        "timeout": '#!/bin/sh\nshift 3\nexec "$@"\n',
        "stat": STAT.format(node=tmp_path),
        "sleep": f'#!/bin/sh\necho "sleep $*" >>{calls}\n[ ! -e {tmp_path}/then ] || . {tmp_path}/then\n',
        "umount": f'#!/bin/sh\necho "umount $*" >>{calls}\ncase $1 in *l) exit 0 ;; esac\nexit 32\n',
    }
    for name, text in programs.items():
        (bin_ / name).write_text(text)
        (bin_ / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    return tmp_path


def release(node, *paths):
    """Run the script, against the files of `node`; what it called."""
    entries = nfs_release.entries(paths)
    script = file_at(entries, "/usr/lib/piimage/release-shares").content.decode()
    script = script.replace("/proc/self", f"{node}/proc").replace("/sys/fs/nfs", f"{node}/sys")
    done = subprocess.run(
        ["sh", "-s", "--", *(paths or ["/srv/cluster"])],
        input=script,
        text=True,
        capture_output=True,
        timeout=20,
        check=True,
    )
    return (node / "calls").read_text().splitlines(), done.stdout


def test_a_server_that_gives_no_answer_is_let_go(node):
    calls, said = release(node)

    assert calls == ["stat -f /srv/cluster"]
    assert (node / "sys/0:45/shutdown").read_text() == "1\n"
    assert "the server of /srv/cluster does not answer" in said


def test_a_server_that_answers_something_is_waited_for(node):
    (node / "later").write_text(MOUNTSTATS.format(answers=18, others=999))
    (node / "then").write_text(f": >{node}/proc/mountinfo\n")

    calls, _ = release(node)

    assert calls == ["stat -f /srv/cluster", "sleep 1"]
    assert (node / "sys/0:45/shutdown").read_text() == "0\n"


def test_what_another_server_answers_is_no_sign_of_this_one(node):
    (node / "later").write_text(MOUNTSTATS.format(answers=17, others=1000))
    (node / "then").write_text(f": >{node}/proc/mountinfo\n")

    release(node)

    assert (node / "sys/0:45/shutdown").read_text() == "1\n"


@pytest.mark.parametrize("status", ["0", "1"])
def test_a_server_that_answers_is_left_alone_until_the_share_is_unmounted(node, status):
    (node / "status").write_text(status)
    (node / "then").write_text(f"[ $(wc -l <{node}/calls) -lt 6 ] || : >{node}/proc/mountinfo\n")

    calls, _ = release(node)

    assert calls == ["stat -f /srv/cluster", "sleep 1"] * 3
    assert (node / "sys/0:45/shutdown").read_text() == "0\n"


def test_a_server_that_dies_in_mid_shutdown_is_let_go(node):
    (node / "status").write_text("0")
    (node / "then").write_text(f"echo 137 >{node}/status\n")

    calls, _ = release(node)

    assert calls == ["stat -f /srv/cluster", "sleep 1", "stat -f /srv/cluster"]
    assert (node / "sys/0:45/shutdown").read_text() == "1\n"


def test_an_older_kernel_is_forced_again_and_again(node):
    (node / "sys/0:45/shutdown").unlink()

    calls, _ = release(node)

    assert calls[1:5] == ["umount -icf /srv/cluster", "sleep 2"] * 2
    assert calls.count("umount -icf /srv/cluster") == 10
    assert calls[-1] == "umount -icl /srv/cluster"


def test_a_path_is_not_taken_for_one_that_begins_with_it(node):
    assert release(node, "/srv/clus", "/srv/cluster/x") == ([], "")


def test_what_is_not_mounted_is_left_alone(node):
    (node / "proc/mountinfo").write_text("".join(MOUNTINFO.splitlines(keepends=True)[:2]))

    assert release(node, "/srv/cluster", "/srv") == ([], "")


def test_stopping_the_service_by_hand_does_nothing(node):
    (node / "state").write_text("running")

    assert release(node) == ([], "")
