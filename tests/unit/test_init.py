"""`piimage init` on desks that have this and lack that; what it writes is read back as cluster.yaml is."""

from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
import time
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from piimage.cli.main import main
from piimage.errors import ConfigError, PiimageError
from piimage.init import starter, surroundings
from piimage.init.starter import AccessPoint, Answers
from piimage.resolve import load

#: Of a laptop: Wi-Fi, Docker, and a VPN with a table of its own and half of everything as its way.
ROUTES = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
        /1 universe UNICAST
     +-- 10.1.0.0/16 2 0 2
        +-- 10.1.10.0/24 2 0 2
           |-- 10.1.10.0
              /24 link UNICAST
           |-- 10.1.10.77
              /32 host LOCAL
     |-- 172.17.0.0
        /16 link UNICAST
Id 52:
  +-- 0.0.0.0/0 3 0 5
     |-- 10.2.0.0
        /16 universe UNICAST
     |-- 127.0.0.1
        /32 host LOCAL
"""
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGZ5fCHVK0B4aZ4cF8hGJ0fS0iHn8EZcY1sC0dYw2mJX ada@desk\n"
ZONES = "# tzdata\nIT\t+4154+01229\tEurope/Rome\nCH\t+4723+00832\tEurope/Zurich\n"


class Terminal(io.StringIO):
    """What is typed at one."""

    def isatty(self):
        return True


@pytest.fixture
def desk(tmp_path, monkeypatch, capsys):
    """A desk with a user, a key, networks and a time zone; `run` is `piimage init`."""
    home, here = tmp_path / "home", tmp_path / "pico5"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "id_ed25519.pub").write_text(KEY)
    here.mkdir()
    (tmp_path / "fib_trie").write_text(ROUTES)
    (tmp_path / "zone.tab").write_text(ZONES)
    (tmp_path / "localtime").symlink_to("/usr/share/zoneinfo/Europe/Rome")
    monkeypatch.setattr(surroundings, "_ROUTES", tmp_path / "fib_trie")
    monkeypatch.setattr(surroundings, "_LOCALTIME", tmp_path / "localtime")
    monkeypatch.setattr(surroundings, "_ZONES", tmp_path)
    for name, value in {
        "HOME": home,
        "LOGNAME": "ada",
        "PIIMAGE_CACHE": tmp_path / "cache",
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.chdir(here)

    class Desk:
        routes = tmp_path / "fib_trie"

        def __init__(self, home, here):
            self.home, self.here = home, here
            self.key = home / ".ssh" / "id_ed25519.pub"

        def run(self, *words, typed=None):
            answers = "".join(f"{line}\n" for line in typed or ())
            terminal = io.StringIO(answers) if typed is None else Terminal(answers)
            monkeypatch.setattr(sys, "stdin", terminal)
            monkeypatch.setattr(sys, "argv", ["piimage", "init", *words])
            with pytest.raises(SystemExit) as caught:
                main()
            return caught.value.code, *capsys.readouterr()

    return Desk(home, here)


def cluster_at(path):
    return load(path, check_secrets=False).cluster


def test_with_yes_all_comes_from_the_desk(desk):
    code, out, err = desk.run("--yes")

    assert code == 0
    made = cluster_at(desk.here / "cluster.yaml")
    assert (made.name, len(made.nodes), made.users[0].name) == ("pico5", 4, "ada")
    assert made.timezone == "Europe/Rome"
    assert made.users[0].ssh_keys[0].value == str(desk.key)
    assert made.wifi is None
    assert str(made.subnet) == "10.3.10.0/24"  # the desk has 10.1.10.0/24, the VPN 10.2.0.0/16
    assert out == (
        "wrote cluster.yaml: `pico5`, 4 nodes (node0 to node3, 10.3.10.10 to 10.3.10.13), head node0\n"
    )
    assert "login: `ada`, with ~/.ssh/id_ed25519.pub\n" in err
    assert "piimage base make debian-13" in err
    assert sorted(path.name for path in desk.here.iterdir()) == ["cluster.yaml"]


def test_the_key_is_named_so_that_it_holds_for_another_home(desk):
    desk.run("--yes")

    assert "ssh_keys: [file:~/.ssh/id_ed25519.pub]" in (desk.here / "cluster.yaml").read_text()


def test_options_go_before_the_desk(desk):
    words = (
        "--name lab --nodes 6 --user bo --ssh-key gh:bo --subnet 10.9.8.0/24 --board pi4".split()
    )
    code, _, err = desk.run("--yes", *words, "--timezone", "Europe/Zurich", "--wifi", "hut")

    made = cluster_at(desk.here / "cluster.yaml")
    assert code == 0
    assert (made.name, len(made.nodes), made.users[0].name) == ("lab", 6, "bo")
    assert (made.users[0].ssh_keys[0].kind, made.users[0].ssh_keys[0].value) == ("gh", "bo")
    assert made.nodes[5].address.ip == IPv4Address("10.9.8.15")
    assert made.nodes[0].board == "pi4"
    assert made.wifi is not None
    assert (made.wifi.ssid, made.wifi.country) == ("hut", "CH")
    assert (made.wifi.psk.kind, made.wifi.psk.value) == ("env", "PI_WIFI_PSK")
    assert "read -rs PI_WIFI_PSK; export PI_WIFI_PSK" in err


def test_a_file_of_another_name(desk):
    code, out, err = desk.run("lab.yaml", "--yes")

    assert code == 0
    assert out.startswith("wrote lab.yaml: ")
    assert "piimage validate lab.yaml" in err
    assert "piimage build lab.yaml --all" in err


@pytest.mark.parametrize("words", [("--yes",), ()])
def test_no_file_is_overwritten(desk, words):
    (desk.here / "cluster.yaml").write_text("mine\n")

    code, out, err = desk.run(*words, typed=None if words else [])

    assert (code, out) == (1, "")
    assert "there is a file `cluster.yaml` already" in err
    assert (desk.here / "cluster.yaml").read_text() == "mine\n"


def test_a_link_that_leads_nowhere_is_a_file_too(desk):
    (desk.here / "cluster.yaml").symlink_to("nowhere")

    assert desk.run("--yes")[0] == 1
    assert not (desk.here / "nowhere").exists()


def test_without_a_terminal_it_says_so(desk):
    code, _, err = desk.run()

    assert code == 1
    assert "there is no terminal to ask on" in err
    assert "`--yes`" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--name", "My Lab"), "--name: `My Lab` is not a hostname"),
        (("--nodes", "0"), "--nodes: a cluster has 1 to 1000 boards, not `0`"),
        (("--user", "root"), "--user: `root` is a system account's name"),
        (("--user", "Ada"), "did you mean `ada`?"),
        (("--ssh-key", "nowhere.pub"), "ssh-keygen -t ed25519"),
        (("--ssh-key", "gh:"), "is not a GitHub name"),
        (("--subnet", "10.1.10.7/24"), "did you mean `10.1.10.0/24`?"),
        (("--wifi", "x" * 33), "--wifi: an SSID has 1 to 32 bytes"),
        (("--wifi", "hut", "--country", "Italy"), "--country: "),
        (("--wifi", "hut", "--psk", "open sesame"), "a passphrase on a command line is seen by others"),
        (("--psk", "env:X"), "--psk says something of a Wi-Fi that has no name"),
        (("--country", "IT", "--wifi", ""), "add `--wifi SSID`"),
        (("--base", "debain-13"), "did you mean `debian-13`?"),
        (("--timezone", "Europe/Roma"), "timezone: there is no time zone `Europe/Roma`"),
        (("--board", "pi9"), "pi9"),
        (("--nodes", "300", "--subnet", "10.9.9.0/24"), "10.9.9.0/24"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_told_and_nothing_is_left(desk, words, said):
    code, out, err = desk.run("--yes", *words)

    assert (code, out) == (2, "")
    assert said in err
    assert ".partial" not in err
    assert list(desk.here.iterdir()) == []


def test_answers_are_asked_for_again_until_they_are_right(desk):
    typed = ["Lab!", "lab", "many", "3", "", "", "10.1.10.0", "10.8.8.0/24", ""]

    code, out, err = desk.run(typed=typed)

    assert code == 0
    assert out.startswith("wrote cluster.yaml: `lab`, 3 nodes (node0 to node2, 10.8.8.10")
    assert "`Lab!` is not a hostname" in err
    assert "not `many`" in err
    assert "did you mean `10.1.10.0/24`?" in err
    assert "name of the cluster [pico5]: " in err
    assert "ssh key that may log in (a .pub file, gh:NAME or none) [~/.ssh/id_ed25519.pub]: " in err


def test_what_an_option_says_is_not_asked(desk):
    code, out, err = desk.run("--name", "lab", "--nodes", "2", "--wifi", "", typed=["", "", ""])

    assert code == 0
    assert "name of the cluster" not in err
    assert "Wi-Fi" not in err
    assert "2 nodes" in out


def test_a_typed_end_of_file_leaves_nothing(desk):
    code, out, _ = desk.run(typed=["lab"])

    assert (code, out) == (130, "")
    assert list(desk.here.iterdir()) == []


@pytest.mark.processes
def test_a_passphrase_is_typed_unseen_and_kept_hashed(desk):
    """On a real terminal, where it must not be echoed."""
    controller, terminal = pty.openpty()
    argv = [sys.executable, "-m", "piimage", "init", "--wifi", "lab", "--country", "IT"]
    with subprocess.Popen(
        argv, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
    ) as child:
        os.close(terminal)
        seen = typed(controller, ["", "", "", "", "", "short", "correct horse"])
        assert child.wait(20) == 0
    os.close(controller)

    secret = desk.here / "cluster.psk"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert secret.read_text() == f"{starter.psk('lab', 'correct horse')}\n"
    assert "psk: file:cluster.psk " in (desk.here / "cluster.yaml").read_text()
    assert cluster_at(desk.here / "cluster.yaml").wifi.psk.value == str(secret)
    assert "a Wi-Fi passphrase has 8 to 63 characters, but this one has 5" in seen
    assert "correct horse" not in seen
    assert "horse" not in (desk.here / "cluster.yaml").read_text()


def typed(controller, lines):
    """Answer each question once it stands there; all that was shown."""
    shown, waiting, until = "", list(lines), time.monotonic() + 30
    while time.monotonic() < until:
        if not select.select([controller], [], [], 0.2)[0]:
            continue
        try:
            more = os.read(controller, 4096).decode()
        except OSError:  # EIO: the program has gone
            break
        shown += more
        if shown.endswith(": ") and waiting:
            time.sleep(0.02)  # getpass drops what was typed before it turned the echo off
            os.write(controller, f"{waiting.pop(0)}\n".encode())
    return shown


def test_psk_is_that_of_the_standard():
    """IEEE 802.11i-2004, H.4.2, first test vector."""
    expected = "f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e"
    assert starter.psk("IEEE", "password") == expected


def test_the_warning_when_the_wire_is_where_the_desk_is(desk):
    code, _, err = desk.run("--yes", "--subnet", "10.2.3.0/24")

    assert code == 0
    assert "warning: this machine has an address in, or a route to, 10.2.0.0/16" in err


def test_a_desk_without_anything(desk, monkeypatch):
    """No key, no table of routes, no time zone, and root who may be no user."""
    desk.key.unlink()
    desk.routes.unlink()
    monkeypatch.setattr(surroundings, "_LOCALTIME", desk.here / "none")
    monkeypatch.setenv("LOGNAME", "root")
    monkeypatch.delenv("USER", raising=False)

    code, _, err = desk.run("--yes")

    made = cluster_at(desk.here / "cluster.yaml")
    assert code == 0
    assert (made.users[0].name, made.users[0].ssh_keys, made.timezone) == ("pi", (), "Etc/UTC")
    assert str(made.subnet) == "10.1.10.0/24"
    assert "with the cluster's own key" in err


def test_sudo_takes_the_user_who_called_it():
    assert surroundings.user_name({"SUDO_USER": "ada", "LOGNAME": "root"}) == "ada"


def test_keys_that_ssh_prefers_come_first_and_others_after(desk):
    directory = desk.key.parent
    for name in ("id_rsa.pub", "work.pub", "broken.pub", "id_ed25519-cert.pub"):
        (directory / name).write_text("no key\n" if name == "broken.pub" else KEY)

    names = [path.name for path in surroundings.ssh_keys(desk.home)]

    assert names == ["id_ed25519.pub", "id_rsa.pub", "work.pub"]


def test_networks_of_all_tables_but_no_way_to_everywhere(desk):
    found = {str(network) for network in surroundings.networks()}

    assert found == {"10.1.10.0/24", "10.1.10.77/32", "172.17.0.0/16", "10.2.0.0/16"}


@settings(max_examples=25)
@given(st.lists(st.builds(lambda a, p: IPv4Network((a, p), strict=False),
                          st.integers(0, 2**32 - 1), st.integers(8, 32)), max_size=9))  # fmt: skip
def test_a_free_subnet_overlaps_nothing(taken):
    found = surroundings.free_subnet(taken)

    assert found is None or not any(found.overlaps(network) for network in taken)


def test_a_machine_that_is_everywhere_has_no_free_subnet():
    everywhere = [IPv4Network(n) for n in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")]
    assert surroundings.free_subnet(everywhere) is None


#: What an SSID may hold and YAML can.
LETTERS = st.characters(
    exclude_categories=("Cs", "Cc"), exclude_characters="\u2028\u2029\ufeff\ufffe\uffff"
)


@settings(max_examples=10)
@given(
    ssid=st.text(LETTERS, min_size=1, max_size=8),
    nodes=st.integers(1, 40),
    name=st.sampled_from(["no", "null", "1e3", "y", "a-b", "true", "0x1f"]),
)
def test_whatever_is_answered_is_read_back(tmp_path_factory, ssid, nodes, name):
    """By our own reader and by YAML 1.1's."""
    path = tmp_path_factory.mktemp("init") / "cluster.yaml"
    wifi = AccessPoint(ssid=ssid, country="NO", psk="env:X")
    subnet = IPv4Network("10.5.5.0/24")
    made = starter.write(path, Answers(name=name, nodes=nodes, user="n", subnet=subnet, wifi=wifi))

    assert (made.name, len(made.nodes), made.wifi.ssid) == (name, nodes, ssid)
    assert (made.wifi.country, made.users[0].name) == ("NO", "n")
    read = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert (read["name"], read["network"]["wifi"]["country"]) == (name, "NO")
    assert read["network"]["wifi"]["ssid"] == ssid


def test_all_nodes_fit_where_the_tenth_address_is_too_high():
    small = IPv4Network("10.5.5.0/29")
    assert starter.first_address(small, 4) == IPv4Address("10.5.5.1")
    assert starter.first_address(IPv4Network("10.5.5.0/24"), 4) == IPv4Address("10.5.5.10")


def answers(**more):
    subnet = IPv4Network("10.5.5.0/24")
    return Answers(**{"name": "lab", "nodes": 2, "user": "ada", "subnet": subnet, **more})


def test_a_file_that_came_in_between_is_left_alone(tmp_path, monkeypatch):
    """Between the look and the publishing, which the file system does in one step."""
    path = tmp_path / "cluster.yaml"
    link = os.link

    def late(source, target):
        path.write_text("another's\n")
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    secret = AccessPoint(ssid="lab", country="IT", psk="file:cluster.psk", secret="0" * 64)

    with pytest.raises(PiimageError, match="already"):
        starter.write(path, answers(wifi=secret))

    assert path.read_text() == "another's\n"
    assert [p.name for p in tmp_path.iterdir()] == ["cluster.yaml"]


def test_a_file_system_without_links(tmp_path, monkeypatch):
    def link(*_args):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)

    starter.write(tmp_path / "cluster.yaml", answers())

    assert [p.name for p in tmp_path.iterdir()] == ["cluster.yaml"]


def test_a_key_of_the_wifi_that_is_there_already_is_used(desk):
    (desk.here / "cluster.psk").write_text("0" * 64)

    code, _, _ = desk.run("--wifi", "lab", typed=["", "", "", "", "", ""])

    assert code == 0
    assert (desk.here / "cluster.psk").read_text() == "0" * 64
    assert "psk: file:cluster.psk " in (desk.here / "cluster.yaml").read_text()


def test_answers_that_make_no_cluster_say_why(tmp_path):
    with pytest.raises(ConfigError, match="timezone"):
        starter.write(tmp_path / "cluster.yaml", answers(timezone="Mars/Base"))

    assert list(tmp_path.iterdir()) == []
    assert Path(tmp_path).is_dir()
