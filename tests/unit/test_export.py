"""`piimage export`: every file is read by the tool that it is for."""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from jsonschema import Draft7Validator

from piimage import resolve
from piimage.cli.main import main
from piimage.export import drawing, picture
from piimage.export.files import FORMATS, Export
from piimage.progress import Quiet
from piimage.state import state

HERE = Path(__file__).parent
SAMPLE = HERE.parents[1] / "cluster.yaml"
SCHEMA = json.loads((HERE / "imager_os_list.schema.json").read_text())
#: Two roles beside the head's, one of them named as Ansible's own group, boards, a domain, no Wi-Fi.
ODD = """\
version: 1
name: odd
domain: lab.internal
users: [{name: ada, uid: 1000, ssh_keys: [file:work.pub]}, {name: ops, uid: 1001}]
network: {wired: {subnet: 10.7.0.0/24}}
shares: [{path: /srv/a, server: head}, {path: /srv/b, server: store}]
roles: {all: {}, gpu.box: {}}
nodes:
  - {name: front, role: head, board: pi4}
  - {name: n-01, role: worker, board: pi3}
  - {name: n-02, role: worker}
  - {name: store, role: all}
  - {name: gpu, role: gpu.box}
"""
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGZ5fCHVK0B4aZ4cF8hGJ0fS0iHn8EZcY1sC0dYw2mJX ada@desk\n"


def loaded(path):
    return resolve.load(path, env={"HOME": "/home/u"}, check_secrets=False).cluster


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A directory each for the sample and the odd cluster, with a state whose host keys have been made."""
    found = {}
    for name, text in {"sample": SAMPLE.read_text(), "odd": ODD}.items():
        place = tmp_path_factory.mktemp("a b%") / name  # a path that wants quotes
        place.mkdir()
        (place / "cluster.yaml").write_text(text)
        (place / "work.pub").write_text(KEY)
        cluster = loaded(place / "cluster.yaml")
        state.init(cluster).secrets(cluster, {})
        found[name] = place
    return found


@pytest.fixture
def exported(places, tmp_path):
    """Writes exports of a cluster to the test's own directory; returns their paths."""

    def write(name, *formats, door=None, output=None):
        cluster = loaded(places[name] / "cluster.yaml")
        export = Export(cluster=cluster, directory=tmp_path / "out 1", output=output or tmp_path,
                        progress=Quiet(), door=door)  # fmt: skip
        return export.write(formats)

    return write


def said(*argv, **more):
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=False, **more)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == ""
    return done.stdout


def meant(config, host):
    """What ssh makes of a configuration for a host, by `ssh -G`."""
    lines = [
        line.split(" ", 1) for line in said("ssh", "-T", "-G", "-F", config, host).splitlines()
    ]
    found = {}
    for key, value in lines:
        found.setdefault(key, []).append(value.replace("%%", "%"))  # before expansion
    return found


@pytest.mark.parametrize("name", ["node0", "node0.local", "node0.pico5"])
def test_ssh_reaches_the_head_by_its_name_on_the_wifi(exported, places, name):
    made = exported("sample", "ssh-config")
    means = meant(made["ssh-config"], name)

    assert means["hostname"] == ["node0.local"]
    assert "proxyjump" not in means
    assert means["hostkeyalias"] == ["node0"]
    assert means["user"] == ["federico"]
    assert means["identityfile"][0] == f"{places['sample']}/cluster.state/id"
    assert means["identityfile"][1:] == ["~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa"]
    assert means["identitiesonly"] == ["yes"]
    assert means["userknownhostsfile"] == [f"{made['known-hosts']}"]
    assert means["stricthostkeychecking"] == ["true"]


@pytest.mark.parametrize("name", ["node3", "node3.pico5", "10.1.10.243"])
def test_ssh_reaches_a_worker_through_the_head(exported, name):
    means = meant(exported("sample", "ssh-config")["ssh-config"], name)

    assert means["hostname"] == ["10.1.10.243"]
    assert means["proxyjump"] == ["node0"]
    assert means["hostkeyalias"] == ["node3"]
    assert means["user"] == ["federico"]


def test_the_head_by_its_address_is_the_head_on_the_wire(exported):
    means = meant(exported("sample", "ssh-config")["ssh-config"], "10.1.10.240")

    assert means["hostname"] == ["10.1.10.240"]
    assert means["user"] == ["federico"]


def test_other_hosts_are_left_alone(exported):
    config = exported("sample", "ssh-config")["ssh-config"]

    means = meant(config, "example.net")

    assert means == meant("/dev/null", "example.net")


def test_it_can_be_included(exported, tmp_path):
    config = exported("sample", "ssh-config")["ssh-config"]
    (tmp_path / "config").write_text(f'Include "{config}"\nHost *\n    User me\n')

    assert meant(tmp_path / "config", "node3")["user"] == ["federico"]
    assert meant(tmp_path / "config", "example.net")["user"] == ["me"]


def test_the_user_knows_the_head_better(exported):
    config = exported("sample", "ssh-config", door="192.168.7.9")["ssh-config"]

    assert meant(config, "node0")["hostname"] == ["192.168.7.9"]
    assert meant(config, "node3")["proxyjump"] == ["node0"]


def test_a_laptop_on_the_wire_needs_nobody_else(exported):
    config = exported("sample", "ssh-config", door="10.1.10.240")["ssh-config"]

    assert meant(config, "node0")["hostname"] == ["10.1.10.240"]
    assert "proxyjump" not in meant(config, "node3")


def test_a_cluster_without_wifi_is_reached_on_the_wire(exported, places):
    config = exported("odd", "ssh-config")["ssh-config"]

    means = meant(config, "n-01.lab.internal")
    assert means["hostname"] == ["10.7.0.2"]
    assert "proxyjump" not in means
    assert means["identityfile"][1:] == [f"{places['odd']}/work"]


def test_the_host_ca_is_known_for_every_name_and_the_keys_too(exported, places):
    made = exported("sample", "known-hosts")["known-hosts"]
    keys = places["sample"] / "cluster.state"

    for name in ("node3", "10.1.10.243"):
        found = said("ssh-keygen", "-F", name, "-f", made)
        assert "@cert-authority node0,10.1.10.240,node1" in found
        assert (keys / "ca.pub").read_text().split()[1] in found
        assert (keys / "hosts" / "node3.pub").read_text().split()[1] in found
    local = said("ssh-keygen", "-F", "node0.local", "-f", made)
    assert (keys / "hosts" / "node0.pub").read_text().split()[1] in local
    assert "cert-authority" not in local
    assert "node1.local" not in made.read_text()


def test_a_name_that_no_node_has_is_not_known(exported):
    made = exported("sample", "known-hosts")["known-hosts"]
    argv = ["ssh-keygen", "-F", "node9", "-f", str(made)]
    assert subprocess.run(argv, capture_output=True, check=False).returncode == 1


def test_hosts_as_the_resolver_reads_them(exported):
    rows = [
        line.split("#")[0].split()
        for line in exported("odd", "hosts")["hosts"].read_text().splitlines()
    ]

    assert [row for row in rows if row] == [
        ["10.7.0.1", "front.lab.internal", "front"],
        ["10.7.0.2", "n-01.lab.internal", "n-01"],
        ["10.7.0.3", "n-02.lab.internal", "n-02"],
        ["10.7.0.4", "store.lab.internal", "store"],
        ["10.7.0.5", "gpu.lab.internal", "gpu"],
    ]


@pytest.mark.processes
def test_hosts_as_getent_reads_them(exported):
    """glibc's own parser, in a mount namespace where the file is /etc/hosts."""
    made = exported("odd", "hosts")["hosts"]
    script = 'mount --bind "$1" /etc/hosts && exec getent -s hosts:files hosts n-02'
    words = said("unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]),
                 "sh", "-c", script, "sh", made)  # fmt: skip
    assert words.split() == ["10.7.0.3", "n-02.lab.internal", "n-02"]


@pytest.fixture
def asked(tmp_path):
    """A PATH whose ssh writes down what it is asked for, and a function that returns it, call by call."""
    tools, notes = tmp_path / "bin", tmp_path / "notes"
    tools.mkdir()
    notes.mkdir()
    (tools / "ssh").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >"{notes}/$$"\nexit 255\n')
    (tools / "ssh").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(tmp_path)}

    def ask(*argv):
        words = list(map(str, argv))
        subprocess.run(words, env=environment, capture_output=True, check=False)
        return [note.read_text().splitlines() for note in notes.iterdir()]

    return ask


@pytest.mark.processes
def test_parallel_ssh_reads_its_list_and_our_ssh_config(exported, asked):
    made = exported("odd", "pssh")
    config = f"-F '{made['ssh-config']}'"

    calls = asked("parallel-ssh", "-h", made["pssh"], "-x", config, "-i", "uptime")

    assert sorted(call[1] for call in calls) == ["front", "gpu", "n-01", "n-02", "store"]
    assert all(call[call.index("-F") + 1] == str(made["ssh-config"]) for call in calls)


@pytest.mark.processes
def test_clustershell_knows_the_groups(exported, tmp_path):
    made = exported("odd", "clush")["clush"]
    config = tmp_path / "shell"
    (config / "groups.d").mkdir(parents=True)
    (config / "groups.d" / "odd.yaml").write_bytes(made.read_bytes())
    (config / "groups.conf").write_text("[Main]\nautodir: $CFGDIR/groups.d\n")
    environment = {**os.environ, "CLUSTERSHELL_CFGDIR": str(config)}

    def nodes(*words):
        return said("nodeset", *words, env=environment).split()

    assert nodes("-e", "@odd:worker") == ["n-01", "n-02"]
    assert nodes("-e", "@odd:gpu.box") == ["gpu"]
    assert sorted(nodes("-s", "odd", "-a", "-e")) == ["front", "gpu", "n-01", "n-02", "store"]


def inventory(made):
    found = json.loads(said("ansible-inventory", "-i", made["ansible"], "--list",
                            env={**os.environ, "ANSIBLE_LOCALHOST_WARNING": "0"}))  # fmt: skip
    return found, found["_meta"]["hostvars"]


@pytest.mark.processes
def test_ansible_accepts_the_inventory(exported):
    made = exported("odd", "ansible")
    groups, variables = inventory(made)

    assert groups["worker"]["hosts"] == ["n-01", "n-02"]
    assert groups["head"]["hosts"] == ["front"]
    assert groups["role_all"]["hosts"] == ["store"]
    assert groups["gpu_box"]["hosts"] == ["gpu"]
    assert "ungrouped" not in groups or not groups["ungrouped"].get("hosts")
    assert variables["n-01"]["ansible_user"] == "ada"
    assert variables["n-01"]["cluster_board"] == "pi3"
    assert variables["n-01"]["cluster_address"] == "10.7.0.2"
    assert variables["n-01"]["cluster_head"] == "front"


@pytest.mark.processes
def test_ansible_goes_by_our_ssh_config(exported, asked):
    """A configuration whose path has a blank."""
    made = exported("sample", "ansible")

    calls = asked("ansible", "-i", made["ansible"], "node3", "-m", "raw", "-a", "true")

    (call,) = [call for call in calls if "node3" in call]  # first it asks ssh what that can do
    assert call[call.index("-F") + 1] == str(made["ssh-config"])


@pytest.fixture
def images(tmp_path):
    """Images of node0 (raw), node1 (xz) and node2 (qcow2, which Imager does not read)."""
    raw = os.urandom(2048) + bytes(1 << 20)
    (tmp_path / "node0.img").write_bytes(raw)
    (tmp_path / "node0.bmap").write_text("<bmap/>")
    (tmp_path / "node1.img.xz").write_bytes(lzma.compress(raw, preset=0))
    (tmp_path / "node2.qcow2").write_bytes(b"QFI\xfb")
    return tmp_path, raw


def test_imager_gets_the_images_that_it_can_write(exported, images):
    output, raw = images
    found = json.loads(exported("sample", "rpi-imager", output=output)["rpi-imager"].read_text())

    Draft7Validator(SCHEMA).validate(found)
    first, second = found["os_list"]
    digest = hashlib.sha256(raw).hexdigest()
    assert first["name"] == "pico5 node0"
    assert first["url"] == (output / "node0.img").as_uri()
    assert first["bmap_url"] == (output / "node0.bmap").as_uri()
    for entry in (first, second):
        assert (entry["extract_size"], entry["extract_sha256"]) == (len(raw), digest)
        assert entry["init_format"] == "none"
        assert entry["devices"] == ["pi5-64bit", "pi4-64bit", "pi3-64bit"]
    packed = (output / "node1.img.xz").read_bytes()
    assert second["image_download_size"] == len(packed)
    assert second["image_download_sha256"] == hashlib.sha256(packed).hexdigest()
    assert first["image_download_sha256"] == digest
    assert found["imager"]["devices"][0]["default"] is True


def test_the_schema_of_imager_would_refuse_a_wrong_entry(exported, images):
    found = json.loads(exported("sample", "rpi-imager", output=images[0])["rpi-imager"].read_text())
    found["os_list"][0]["init_format"] = "no"
    assert list(Draft7Validator(SCHEMA).iter_errors(found))


def test_a_known_board_narrows_the_choice(exported, tmp_path):
    for name in ("front", "n-01"):
        (tmp_path / f"{name}.img").write_bytes(bytes(512))
    found = json.loads(exported("odd", "rpi-imager")["rpi-imager"].read_text())
    assert [entry["devices"] for entry in found["os_list"]] == [["pi4-64bit"], ["pi3-64bit"]]


NAMESPACE = {"s": "http://www.w3.org/2000/svg"}


def words_of(svg):
    return [e.text for e in ET.fromstring(svg).iterfind(".//s:text", NAMESPACE)]


def test_the_picture_shows_nodes_roles_addresses_and_shares(exported):
    shown = words_of(exported("odd", "svg")["svg"].read_text())

    for words in (
        "odd", "front", "head, pi4", "10.7.0.1", "exports /srv/a", "mounts /srv/b",
        "n-01", "worker, pi3", "mounts 2 shares", "gpu.box", "10.7.0.5",
        "/srv/b: store exports it, all others mount it", "users on every node: ada (1000), ops (1001)",
    ):  # fmt: skip
        assert words in shown


def test_the_picture_in_the_docs_is_that_of_the_sample(exported):
    shown = (SAMPLE.parent / "docs" / "how-to" / "pico5.svg").read_text()
    assert shown == exported("sample", "svg")["svg"].read_text(), (
        "run `piimage export svg` and copy it"
    )


def test_the_picture_shows_the_wifi(exported):
    assert "Wi-Fi lab (IT)" in words_of(exported("sample", "svg")["svg"].read_text())


def test_the_picture_is_drawn_by_a_renderer(exported, tmp_path):
    made = exported("sample", "svg")["svg"]
    said("rsvg-convert", made, "-o", tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("count", [1, 2, 6, 7, 64, 300])
def test_boxes_lie_side_by_side_within_the_picture(tmp_path, count):
    path = tmp_path / "cluster.yaml"
    text = SAMPLE.read_text().replace("count: 5", f"count: {count}")
    path.write_text(text.replace("10.1.10.0/24, first: 10.1.10.240", "10.0.0.0/16"))
    svg = picture.svg(loaded(path))

    root = ET.fromstring(svg)
    boxes = [
        tuple(float(box.get(key)) for key in ("x", "y", "width", "height"))
        for group in root.iterfind("s:g", NAMESPACE)
        if group.find("s:title", NAMESPACE).text.startswith("node")
        for box in group.iterfind("s:rect", NAMESPACE)
    ]
    assert len(boxes) == count
    for number, (x, y, width, height) in enumerate(boxes):
        assert x >= 0
        assert x + width <= float(root.get("width"))
        assert y + height <= float(root.get("height"))
        for x2, y2, _, _ in boxes[number + 1 :]:
            assert abs(x - x2) >= width or abs(y - y2) >= height


def test_names_are_escaped_and_long_ones_cut(tmp_path):
    path = tmp_path / "cluster.yaml"
    text = SAMPLE.read_text().replace("ssid: lab", "ssid: '<&\">'")
    path.write_text(text.replace("node{n}", "a-very-long-name-of-a-node-{n}"))
    svg = picture.svg(loaded(path))

    shown = words_of(svg)
    assert 'Wi-Fi <&"> (IT)' in shown
    assert "a-very-long-nam\N{HORIZONTAL ELLIPSIS}" in shown
    assert "a-very-long-name-of-a-node-4: worker" in svg
    assert drawing.shortened("abc", 3) == "abc"


@pytest.fixture
def piimage(places, tmp_path, monkeypatch, capsys):
    """Runs the command in the sample's directory; files go to the test's own."""
    monkeypatch.setenv("PIIMAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(places["sample"])

    def run(*words):
        output = ["-o", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", ["piimage", "export", *words, *output])
        with pytest.raises(SystemExit) as caught:
            main()
        return caught.value.code, *capsys.readouterr()

    return run


def test_the_command_says_what_it_wrote_and_how_to_use_it(piimage, tmp_path):
    code, out, err = piimage("ssh-config")

    out_dir = tmp_path / "out"
    assert (code, out) == (0, f"{out_dir}/ssh_config\n{out_dir}/known_hosts\n")
    assert f"ssh-config: `ssh -F {out_dir}/ssh_config node4`" in err
    assert out_dir.stat().st_mode & 0o777 == 0o700


def test_the_directory_of_the_build_is_its_owners_alone_whichever_command_makes_it(
    places, tmp_path
):
    cluster = loaded(places["sample"] / "cluster.yaml")
    output = tmp_path / "dist" / cluster.name
    Export(cluster, output / "export", output, Quiet()).write(["svg"])

    assert output.stat().st_mode & 0o777 == 0o700


def test_json_names_the_files(piimage, tmp_path):
    code, out, _ = piimage("svg", "hosts", "--json")

    assert code == 0
    out_dir = tmp_path / "out"
    assert json.loads(out) == {
        "files": {"hosts": f"{out_dir}/hosts", "svg": f"{out_dir}/pico5.svg"}
    }


def test_all_is_what_there_is_something_for(piimage, tmp_path):
    code, _, _ = piimage("all")

    assert code == 0
    assert len(list((tmp_path / "out").iterdir())) == len(FORMATS) - 1  # there are no images

    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "node1.img").write_bytes(bytes(512))
    code, _, err = piimage("all", "--images", str(tmp_path / "images"))
    assert code == 0
    assert "no card image of node0, node2, node3, node4" in err
    assert len(list((tmp_path / "out").iterdir())) == len(FORMATS)


def test_no_images_are_an_error_when_asked_for(piimage, tmp_path):
    code, out, err = piimage("svg", "rpi-imager", "--images", str(tmp_path))

    assert (code, out) == (1, "")
    assert "piimage build --all --format img" in err
    assert not (tmp_path / "out").exists()


def test_another_head(piimage, tmp_path):
    assert piimage("ssh-config", "--head", "192.168.1.7")[0] == 0
    assert meant(tmp_path / "out" / "ssh_config", "node0")["hostname"] == ["192.168.1.7"]


@pytest.mark.parametrize("head", ["a b", "-oProxyCommand=x", "x;y", "$(x)", ""])
def test_a_head_that_is_no_host_is_refused(piimage, head):
    code, _, err = piimage("ssh-config", f"--head={head}")
    assert code == 2
    assert "--head: " in err


@pytest.mark.parametrize("words", [("svgs",), ()])
def test_a_format_that_is_none(piimage, words):
    code, out, err = piimage(*words)
    assert (code, out) == (2, "")
    assert "svg" in err


def test_without_a_state_nothing_is_invented(tmp_path, monkeypatch, capsys):
    (tmp_path / "cluster.yaml").write_text(SAMPLE.read_text())
    monkeypatch.setenv("PIIMAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["piimage", "export", "ssh-config"])
    with pytest.raises(SystemExit) as caught:
        main()

    assert caught.value.code == 1
    assert "has no state directory here" in capsys.readouterr().err
    assert not (tmp_path / "cluster.state").exists()


def test_secrets_need_not_be_at_hand_and_are_in_no_file(places, tmp_path):
    text = SAMPLE.read_text().replace("psk: a1b8", "psk: env:NOT_SET  # a1b8")
    place = places["sample"] / "env.yaml"
    place.write_text(text)
    cluster = loaded(place)
    state.init(cluster)
    made = Export(cluster=cluster, directory=tmp_path / "out", output=tmp_path, progress=Quiet())
    written = made.write(made.possible())

    private = (places["sample"] / "env.state" / "id").read_text().splitlines()[1]
    for path in written.values():
        assert private not in path.read_text()
