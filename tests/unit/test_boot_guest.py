"""Logging in: a client that trusts the CA alone, a program that runs anywhere, answers that are checked."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from piimage.boot import guest
from piimage.boot.qemu import Vm
from piimage.components.contribution import Check
from piimage.errors import RehearsalError

REPOSITORY = Path(__file__).parents[2]
INSIDE = REPOSITORY / "piimage/boot/inside.py"
SECRETS = INSIDE.with_name("inside_secrets.py")


class Machine(Vm):
    """As much of a `Vm` as `ask` looks at."""

    running = True

    def __init__(self, *, running=True):
        self.running = running

    def failure(self, words):
        return RehearsalError(words)


@pytest.fixture
def access(tmp_path):
    return guest.write_access(
        tmp_path, name="node3", user="federico", port=2222, identity=tmp_path / "a b%c" / "id",
        ca_public="ssh-ed25519 AAAA pico5 host CA\n",
    )  # fmt: skip


@pytest.fixture
def ssh(tmp_path, monkeypatch):
    """Put an ssh on PATH whose body is shell."""

    def make(body):
        tool = tmp_path / "bin" / "ssh"
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(f"#!/bin/sh\n{body}\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
        monkeypatch.setattr(guest, "_PAUSE", 0.02)

    return make


def effective(access):
    """What the real ssh makes of the file."""
    done = subprocess.run(
        ["ssh", "-G", "-F", access.config, "node3"], capture_output=True, text=True, check=True
    )
    return dict(line.partition(" ")[::2] for line in done.stdout.splitlines())


def test_the_client_trusts_nothing_but_the_ca(access, tmp_path):
    found = effective(access)

    assert found["hostkeyalgorithms"] == "ssh-ed25519-cert-v01@openssh.com"
    assert found["stricthostkeychecking"] in ("yes", "true")
    assert found["globalknownhostsfile"] == "/dev/null"
    assert found["userknownhostsfile"].strip('"') == str(tmp_path / "known_hosts")
    assert found["hostkeyalias"] == "node3"
    assert found["batchmode"] == "yes"
    assert (found["hostname"], found["port"], found["user"]) == ("127.0.0.1", "2222", "federico")
    assert found["identityfile"].strip('"').replace("%%", "%") == str(tmp_path / "a b%c" / "id")
    assert (tmp_path / "known_hosts").read_text() == "@cert-authority node3 ssh-ed25519 AAAA\n"


def test_people_get_a_command(access, tmp_path):
    assert access.command == f"ssh -F {tmp_path}/ssh_config node3"


def test_facts_come_back(access, ssh):
    ssh("""cat >/dev/null; echo '{"version": 1}'""")

    assert guest.ask(access, b"x", Machine(), reach=1, limit=10) == {"version": 1}


def test_a_busy_node_is_asked_again(access, ssh, tmp_path):
    ssh(
        f"""cat >/dev/null; [ -e {tmp_path}/second ] || {{ >{tmp_path}/second; exit 255; }}; echo '{{}}'"""
    )

    assert guest.ask(access, b"x", Machine(), reach=10, limit=10) == {}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            "echo 'Host key verification failed.' >&2; exit 255",
            "did not let us in: Host key verification",
        ),
        (
            "echo 'Permission denied (publickey).' >&2; exit 255",
            "did not let us in: Permission denied",
        ),
        ("exit 255", "no reason given"),
        (
            "echo 'bash: python3: not found' >&2; exit 127",
            "report failed: bash: python3: not found",
        ),
        ("echo Welcome", "not JSON"),
        ("echo '[]'", "not an object"),
        ("exec sleep 20", "did not report within 1 s"),
    ],
)
def test_what_goes_wrong_is_said(access, ssh, body, words):
    ssh(body)

    with pytest.raises(RehearsalError, match=re.escape(words)):
        guest.ask(access, b"x", Machine(), reach=0.1, limit=1)


def test_a_dead_machine_is_not_asked_again(access, ssh):
    ssh("exit 255")

    with pytest.raises(RehearsalError, match="did not let us in"):
        guest.ask(access, b"x", Machine(running=False), reach=1000, limit=10)


def test_a_node_alone_is_not_asked_what_needs_the_others():
    asked = [Check(name="own", argv=("a",)), Check(name="all", argv=("b",), needs_cluster=True)]

    alone = guest.program([], asked, 5).decode()
    together = guest.program([], asked, 5, alone=False).decode()

    assert "'own'" in alone
    assert "'all'" not in alone
    assert "'all'" in together


def test_the_program_is_whole_and_runs_with_any_python(tmp_path):
    """Sent as it is, with a question that every machine can answer."""
    text = guest.program(["it's", 'a "b"'], [Check(name="n", argv=("echo", "'\"\\"))], 5).decode()
    head, run, tail = text.rpartition("for source in")
    asked = f"{head}TASK, REQUEST = 'answers', REQUEST['checks']\n{run}{tail}"

    done = subprocess.run(["python3", "-"], input=asked, capture_output=True, text=True, check=True)

    (answer,) = json.loads(done.stdout)
    assert answer == {"name": "n", "status": 0, "stdout": "'\"\\\n", "stderr": ""}


def test_the_program_imports_nothing_of_ours():
    code = f"import sys, runpy; runpy.run_path({str(INSIDE)!r}); print([m for m in sys.modules if 'piimage' in m])"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"


def test_a_secret_in_a_readable_file_is_found(tmp_path):
    names = runpy.run_path(str(SECRETS))
    exposed = names["exposed"]
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "x").write_bytes(b"\xff\0psk=topsecret\n")
    (tmp_path / "harmless").write_text("nothing")
    exposed.__globals__["_ROOTS"] = [str(tmp_path)]

    found = exposed(
        {
            "needles": {"Wi-Fi key": "topsecret", "private cluster key": "nothing"},
            "private": [str(tmp_path / "log" / "x"), "/none"],
            "own": [str(tmp_path / "harmless")],
        }
    )

    assert found == {
        "readable": [str(tmp_path / "log" / "x")],
        "found": [{"path": str(tmp_path / "log" / "x"), "what": "Wi-Fi key"}],
    }


def test_what_is_looked_for_is_what_the_node_holds(tmp_path):
    needles = runpy.run_path(str(SECRETS))["_needles"]
    files = {
        "/etc/shadow": "root:*:1::::::\nops:!$y$j9T$abc$def:1::::::\n",
        "/var/lib/cloud/seed/nocloud/network-config": 'wifis:\n  a:\n    password: "0123456789abcdef"\n',
        "/var/lib/cloud/seed/nocloud/user-data": "chpasswd:\n  users:\n  - password: $6$x$yyyyyyyyy\n",
        "/home/ada/.ssh/id_cluster": "-----BEGIN OPENSSH PRIVATE KEY-----\na\nb\neee\nf\n-----END\n",
        "/etc/ssh/ssh_host_ed25519_key": "-----BEGIN OPENSSH PRIVATE KEY-----\na\nb\nccc\nd\n-----END\n",
    }
    needles.__globals__["read"] = files.get

    assert needles(["/home/ada/.ssh/id_cluster"]) == {
        "password hash of ops": "$y$j9T$abc$def",
        "Wi-Fi key": "0123456789abcdef",
        "password hash of the seed": "$6$x$yyyyyyyyy",
        "private host key": "ccc",
        "private cluster key": "eee",
    }


@pytest.mark.parametrize(
    ("said", "result", "told"),
    [
        ("\nstatus: done", '{"v1": {"datasource": "x", "errors": []}}', {"status": "done", "errors": []}),
        ("status: error", '{"v1": {"errors": ["no"]}}', {"status": "error", "errors": ["no"]}),
        ("status: running", None, {"status": "running", "errors": []}),
        ("status: done", "{", {"status": "done", "errors": []}),
        (None, None, {}),
    ],
)  # fmt: skip
def test_an_old_cloud_init_is_asked_in_its_words(said, result, told):
    names = runpy.run_path(str(INSIDE), runpy.run_path(str(SECRETS)))
    asked = names["cloud_init"]
    asked.__globals__.update(
        said=lambda _argv, limit: (0, "", ""),
        json_of=lambda _argv: None,
        text_of=lambda _argv: said,
        read=lambda _path: result,
    )

    found = asked(1)

    assert found.pop("waited") >= 0
    assert found == told
