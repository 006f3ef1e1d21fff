"""`own.sh`: whose the files are that `sudo make demo` leaves; scripts on PATH play id, stat, getent, sudo and chown."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

OWN = Path(__file__).parents[2] / "own.sh"


@pytest.fixture
def own(tmp_path):
    """Runs a copy of own.sh in a checkout of user 1000; `uid` runs it, through sudo if `through`."""
    checkout, tools, log = tmp_path / "checkout", tmp_path / "bin", tmp_path / "log"
    checkout.mkdir()
    tools.mkdir()
    shutil.copy(OWN, checkout)

    def run(*argv, uid=0, owner=1000, through="1000", cache=None):
        fakes = {
            "id": f"echo {uid}",
            "stat": f"echo {owner}",
            "getent": "echo ada:x:1000:1000::/home/ada:/bin/sh",
            "sudo": f'echo sudo "$@" >>{log}',
            "chown": f'echo chown "$@" >>{log}',
        }
        for name, text in fakes.items():
            (tools / name).write_text(f"#!/bin/sh\n{text}\n")
            (tools / name).chmod(0o755)
        env = {k: v for k, v in os.environ.items() if k not in ("SUDO_UID", "PIIMAGE_CACHE")}
        env |= {"PATH": f"{tools}:{env['PATH']}"}
        env |= {"SUDO_UID": through, "SUDO_GID": "1001"} if through else {}
        env |= {"PIIMAGE_CACHE": cache} if cache else {}
        done = subprocess.run(
            ["bash", checkout / "own.sh", *argv],
            env=env, capture_output=True, text=True, check=False, cwd=tmp_path,
        )  # fmt: skip
        return done, log.read_text().splitlines() if log.exists() else []

    return run


def test_what_root_makes_through_sudo_is_the_users(own, tmp_path):
    done, log = own("sh", "-c", "pwd; echo $PIIMAGE_CACHE")

    assert done.stdout.splitlines() == [str(tmp_path / "checkout"), "/home/ada/.cache/piimage"]
    assert log == [
        "sudo -u #1000 mkdir -p /home/ada/.cache/piimage",
        "chown -Rh 1000:1001 . /home/ada/.cache/piimage",
    ]


def test_a_failure_is_handed_on_and_what_was_made_handed_back(own):
    done, log = own("sh", "-c", "exit 7")

    assert done.returncode == 7
    assert log[-1].startswith("chown -Rh 1000:1001 .")


def test_a_cache_that_was_named_stays_as_it_is(own):
    done, log = own("sh", "-c", "echo $PIIMAGE_CACHE", cache="/srv/cache")

    assert done.stdout == "/srv/cache\n"
    assert log == ["chown -Rh 1000:1001 ."]


@pytest.mark.parametrize(
    "how",
    [
        {"through": None},  # root itself
        {"uid": 1000},  # an ordinary user within another's sudo
        {"owner": 0},  # root's checkout
        {"through": "0"},  # root's sudo
    ],
)
def test_nothing_changes_hands_otherwise(own, how):
    done, log = own("sh", "-c", "echo ${PIIMAGE_CACHE-unset}", **how)

    assert done.stdout == "unset\n"
    assert log == []
