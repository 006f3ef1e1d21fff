"""The state directory: made once, kept, private, carried about."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path

import phony_facts
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from piimage.cluster import SecretRef
from piimage.disk.atomic import write_errors
from piimage.errors import ConfigError, StateError, WriteFailedError
from piimage.state import keys, state

ENV = {"PI_WIFI_PSK": "correct horse battery"}


@pytest.fixture
def cluster(tmp_path):
    made = phony_facts.cluster()
    return replace(made, directory=tmp_path, source=tmp_path / "lab.yaml")


def tree(path):
    return {
        str(p.relative_to(path)): (p.read_bytes() if p.is_file() else None, p.stat().st_mode)
        for p in sorted(path.rglob("*"))
    }


def tar_of(path, members):
    with tarfile.open(path, "w") as tar:
        for info, content in members:
            member = tarfile.TarInfo(info) if isinstance(info, str) else info
            member.size = member.size or len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def exported(cluster, path):
    """The members of an honest export."""
    state.export(cluster, path)
    with tarfile.open(path) as tar:
        found = [(m, tar.extractfile(m).read() if m.isreg() else b"") for m in tar]
    path.unlink()
    return found


def test_a_full_disk_names_the_directory_that_was_to_be(cluster, tmp_path, monkeypatch):
    def full(path, *_args, **_kwargs):
        with write_errors(path, 400):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(state, "write_bytes", full)

    with pytest.raises(WriteFailedError) as caught:
        state.init(cluster)

    place = tmp_path / "lab.state/ca.pub"
    assert caught.value.message == f"cannot write `{place}`: no space left on device"
    assert caught.value.hint == "free some space"
    assert list(tmp_path.iterdir()) == []


def test_made_beside_the_file_and_private(cluster, tmp_path):
    made = state.init(cluster)

    assert made.path == tmp_path / "lab.state"
    assert made.path.stat().st_mode & 0o777 == 0o700
    modes = {p.name: p.stat().st_mode & 0o777 for p in made.path.iterdir()}
    assert modes == {
        "ca": 0o600,
        "ca.pub": 0o644,
        "hosts": 0o700,
        "id": 0o600,
        "id.pub": 0o644,
        "state.json": 0o600,
    }
    assert [p.name for p in tmp_path.iterdir()] == ["lab.state"]


def test_whatever_the_umask(cluster):
    old = os.umask(0)
    try:
        path = state.init(cluster).path
        state.open_state(cluster).secrets(cluster, ENV)
    finally:
        os.umask(old)

    assert all(not p.stat().st_mode & 0o022 for p in path.rglob("*"))
    assert (path / "hosts/node0").stat().st_mode & 0o777 == 0o600
    assert (path / "passwords.json").stat().st_mode & 0o777 == 0o600


def test_init_refuses_a_second_time_and_changes_nothing(cluster):
    before = tree(state.init(cluster).path)

    with pytest.raises(StateError, match="already"):
        state.init(cluster)

    assert tree(state.location(cluster.source)) == before


def test_open_makes_it_once_and_only_when_allowed(cluster):
    with pytest.raises(StateError, match="--require-state"):
        state.open_state(cluster, create=False)
    assert not state.location(cluster.source).exists()

    first = tree(state.open_state(cluster).path)
    second = tree(state.open_state(cluster, create=False).path)

    assert first == second


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o701, 0o777])
def test_readable_by_others_is_refused(cluster, mode):
    state.init(cluster).path.chmod(mode)

    with pytest.raises(StateError, match="can be read by others") as caught:
        state.open_state(cluster)

    assert "chmod 700" in caught.value.hint


def test_of_another_cluster_is_refused(cluster):
    state.init(cluster)

    with pytest.raises(StateError, match="of cluster `pico5`, not of `other`"):
        state.open_state(replace(cluster, name="other"))


def damage(path, name, content):
    (path / name).unlink()
    if content is not None:
        (path / name).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("ca", None, "has no `ca`"),
        ("id", None, "has no `id`"),
        ("id.pub", None, "has no `id.pub`"),
        ("state.json", None, "has no `state.json`"),
        ("state.json", b"", "damaged"),
        ("state.json", b"[]", "damaged"),
        ("state.json", b"\xff\xfe", "damaged"),
        ("state.json", b'{"version": 2, "cluster": "pico5"}', "of this version"),
        ("state.json", b'{"version": 1}', "of this version"),
        ("ca", b"", "not an ssh key"),
        ("ca", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", "not an ssh key"),
    ],
)
def test_damage_is_told_in_a_sentence(cluster, name, content, words):
    damage(state.init(cluster).path, name, content)

    with pytest.raises(StateError, match=words):
        state.open_state(cluster)


def test_a_ca_under_a_passphrase_is_refused(cluster):
    path = state.init(cluster).path
    argv = ["ssh-keygen", "-q", "-p", "-P", "", "-N", "passphrase", "-f", str(path / "ca")]
    subprocess.run(argv, check=True, capture_output=True)

    with pytest.raises(StateError, match="not an ssh key of piimage"):
        state.open_state(cluster)


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff", b'{"federico": '])
def test_damaged_hashes_are_told(cluster, content):
    path = state.init(cluster).path
    (path / "passwords.json").write_bytes(content)

    with pytest.raises(StateError, match="damaged"):
        state.State(path).secrets(cluster, ENV)


def test_a_file_in_its_place_is_refused(cluster):
    state.location(cluster.source).write_text("hello\n")

    with pytest.raises(StateError, match="is not one"):
        state.open_state(cluster)


def test_no_directory_to_make_it_in(cluster, tmp_path):
    nowhere = replace(cluster, source=tmp_path / "absent" / "lab.yaml")

    with pytest.raises(WriteFailedError, match=r"lab\.state"):
        state.open_state(nowhere)


def test_secrets_stay_the_same(cluster):
    first = state.open_state(cluster).secrets(cluster, ENV)
    before = tree(state.location(cluster.source))

    second = state.open_state(cluster).secrets(cluster, ENV)

    assert first == second
    assert tree(state.location(cluster.source)) == before
    assert len({key.private for key in first.host_keys.values()}) == 3


def test_a_new_node_leaves_the_others_alone(cluster):
    first = state.open_state(cluster).secrets(cluster, ENV)
    more = replace(phony_facts.cluster(count=4), source=cluster.source)

    second = state.open_state(more).secrets(more, ENV)

    assert {n: second.host_keys[n] for n in first.host_keys} == first.host_keys
    assert "node3" in second.host_keys


def test_a_new_address_gives_a_new_certificate_and_keeps_the_key(cluster):
    first = state.open_state(cluster).secrets(cluster, ENV).host_keys
    moved = replace(cluster.nodes[1], address=IPv4Interface("10.1.10.99/24"))
    other = replace(cluster, nodes=(cluster.nodes[0], moved, cluster.nodes[2]))

    second = state.open_state(other).secrets(other, ENV).host_keys

    assert second["node1"].private == first["node1"].private
    assert second["node1"].certificate != first["node1"].certificate
    assert second["node0"] == first["node0"]


@pytest.mark.parametrize("change", ["truncate", "flip", "empty", "of another node"])
def test_a_spoilt_certificate_is_made_again(cluster, change):
    opened = state.open_state(cluster)
    opened.secrets(cluster, ENV)
    path = opened.path / "hosts/node1-cert.pub"
    line = path.read_bytes()
    middle = len(line) - 30
    path.write_bytes(
        {
            "truncate": line[: len(line) // 2],
            "flip": line[:middle]
            + (b"A" if line[middle : middle + 1] != b"A" else b"B")
            + line[middle + 1 :],
            "empty": b"",
            "of another node": (opened.path / "hosts/node2-cert.pub").read_bytes(),
        }[change]
    )

    made = opened.secrets(cluster, ENV).host_keys["node1"]

    assert keys.certifies(made.certificate, made.public, ("10.1.10.241", "node1"), opened._ca())


def ssh_keygen(*argv):
    done = subprocess.run(
        ["ssh-keygen", *map(str, argv)], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_openssh_reads_what_we_made(cluster):
    domain = replace(cluster, domain="lab.example")
    opened = state.open_state(domain)
    opened.secrets(domain, ENV)

    for name in ("ca", "id", "hosts/node0"):
        ours = (opened.path / f"{name}.pub").read_text().split()[:2]
        assert ssh_keygen("-y", "-f", opened.path / name).split()[:2] == ours
    shown = ssh_keygen("-L", "-f", opened.path / "hosts/node2-cert.pub")

    assert "Type: ssh-ed25519-cert-v01@openssh.com host certificate" in shown
    assert 'Key ID: "node2"' in shown
    assert "Valid: forever" in shown
    principals = shown.split("Principals:")[1].split("Critical Options:")[0].split()
    assert principals == ["10.1.10.242", "node2", "node2.lab.example"]
    fingerprint = ssh_keygen("-l", "-f", opened.path / "ca.pub").split()[1]
    assert f"Signing CA: ED25519 {fingerprint}" in shown


def test_two_builds_at_once_make_one_state(cluster, tmp_path):
    script = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from dataclasses import replace; from pathlib import Path; import phony_facts\n"
        "from piimage.state import state\n"
        "cluster = replace(phony_facts.cluster(count=12), source=Path(sys.argv[1]))\n"
        "made = state.open_state(cluster).secrets(cluster, {'PI_WIFI_PSK': 'correct horse'})\n"
        "print(sorted((n, k.private, k.certificate) for n, k in made.host_keys.items()), made.ca_public)\n"
    )
    argv = [sys.executable, "-c", script, str(cluster.source), str(Path(__file__).parent)]
    running = [subprocess.Popen(argv, stdout=subprocess.PIPE) for _ in range(4)]

    said = {child.communicate()[0] for child in running}

    assert [child.returncode for child in running] == [0] * 4
    assert len(said) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["lab.state"]


def test_export_and_import(cluster, tmp_path):
    opened = state.open_state(cluster)
    secrets = opened.secrets(cluster, ENV)
    (opened.path / "hosts" / ".node0.partial-1").write_bytes(b"half a key")
    target = tmp_path / "copy.tar"
    state.export(cluster, target)

    assert target.stat().st_mode & 0o777 == 0o600
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = replace(cluster, source=elsewhere / "other-name.yaml")
    made = state.import_(moved, target)

    assert made.path == elsewhere / "other-name.state"
    assert state.open_state(moved).secrets(moved, ENV) == secrets
    (opened.path / "hosts" / ".node0.partial-1").unlink()
    assert tree(made.path) == tree(opened.path)


def test_export_overwrites_nothing(cluster, tmp_path):
    state.init(cluster)
    target = tmp_path / "copy.tar"
    target.write_bytes(b"the only copy of an older state")

    with pytest.raises(StateError, match="already"):
        state.export(cluster, target)

    assert target.read_bytes() == b"the only copy of an older state"


def test_export_to_nowhere(cluster, tmp_path):
    state.init(cluster)

    with pytest.raises(WriteFailedError, match="no such file or directory"):
        state.export(cluster, tmp_path / "absent" / "copy.tar")


def test_export_needs_a_state(cluster, tmp_path):
    with pytest.raises(StateError, match="no state directory"):
        state.export(cluster, tmp_path / "copy.tar")


def test_import_overwrites_nothing(cluster, tmp_path):
    members = exported_here(cluster, tmp_path)
    before = tree(state.init(cluster).path)

    with pytest.raises(StateError, match="already"):
        state.import_(cluster, tar_of(tmp_path / "copy.tar", members))

    assert tree(state.location(cluster.source)) == before


def exported_here(cluster, tmp_path):
    """An honest export, its state gone again."""
    home = tmp_path / "honest"
    home.mkdir()
    other = replace(cluster, source=home / "lab.yaml")
    state.open_state(other).secrets(other, ENV)
    return exported(other, home / "out.tar")


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def big(name, size):
    info = tarfile.TarInfo(name)
    info.size = size
    return info


HOSTILE = {
    "absolute": ("/etc/cron.d/evil", b"x"),
    "up": ("../evil", b"x"),
    "up below": ("hosts/../../evil", b"x"),
    "deep": ("hosts/a/b", b"x"),
    "hidden": (".ssh", b"x"),
    "dot": (".", b"x"),
    "symlink": (special("hosts2", tarfile.SYMTYPE, "/etc"), b""),
    "hard link": (special("copy", tarfile.LNKTYPE, "/etc/shadow"), b""),
    "device": (special("null", tarfile.CHRTYPE), b""),
    "fifo": (special("pipe", tarfile.FIFOTYPE), b""),
    "up directory": (special("..", tarfile.DIRTYPE), b""),
    "root directory": (special("/", tarfile.DIRTYPE), b""),
    "large": (big("ballast", 3 << 20), bytes(3 << 20)),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("first", [True, False])
def test_hostile_members(cluster, tmp_path, name, first):
    honest = exported_here(cluster, tmp_path)
    members = [HOSTILE[name], *honest] if first else [*honest, HOSTILE[name]]
    archive = tar_of(tmp_path / "evil.tar", members)
    before = sorted(p.name for p in tmp_path.rglob("*"))

    with pytest.raises(StateError, match="not an exported state"):
        state.import_(cluster, archive)

    assert sorted(p.name for p in tmp_path.rglob("*")) == before


def test_a_file_where_a_directory_is_wanted(cluster, tmp_path):
    archive = tar_of(tmp_path / "evil.tar", [("hosts", b"x"), *exported_here(cluster, tmp_path)])

    with pytest.raises((StateError, WriteFailedError)):
        state.import_(cluster, archive)

    assert not state.location(cluster.source).exists()


@pytest.mark.parametrize("missing", ["state.json", "ca", "ca.pub", "id", "id.pub"])
def test_import_wants_a_whole_state(cluster, tmp_path, missing):
    members = [(m, c) for m, c in exported_here(cluster, tmp_path) if m.name != missing]

    with pytest.raises(StateError, match="not a whole one"):
        state.import_(cluster, tar_of(tmp_path / "part.tar", members))

    assert not state.location(cluster.source).exists()


def test_import_of_another_cluster(cluster, tmp_path):
    archive = tar_of(tmp_path / "copy.tar", exported_here(cluster, tmp_path))

    with pytest.raises(StateError, match="of cluster `pico5`, not of `other`"):
        state.import_(replace(cluster, name="other"), archive)


@pytest.mark.parametrize("content", [b"", b"hello\n", b"\0" * 10240, b"PK\3\4" + bytes(600)])
def test_import_of_no_tar_file(cluster, tmp_path, content):
    path = tmp_path / "what"
    path.write_bytes(content)

    with pytest.raises(StateError, match="is not an exported state"):
        state.import_(cluster, path)


def test_import_of_nothing(cluster, tmp_path):
    with pytest.raises(StateError, match="no such file"):
        state.import_(cluster, tmp_path / "absent.tar")


@pytest.fixture(scope="module")
def honest_bytes(tmp_path_factory):
    home = tmp_path_factory.mktemp("honest")
    cluster = replace(phony_facts.cluster(), source=home / "lab.yaml")
    state.open_state(cluster).secrets(cluster, ENV)
    state.export(cluster, home / "out.tar")
    return (home / "out.tar").read_bytes()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_import_of_spoilt_bytes_is_an_error_or_a_state(honest_bytes, tmp_path_factory, data):
    home = tmp_path_factory.mktemp("spoilt")
    content = bytearray(honest_bytes)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 9000))] = data.draw(st.integers(0, 255))
    (home / "in.tar").write_bytes(content[: data.draw(st.integers(0, len(content)))])
    cluster = replace(phony_facts.cluster(), source=home / "lab.yaml")

    try:
        state.import_(cluster, home / "in.tar")
    except (StateError, WriteFailedError):
        assert not state.location(cluster.source).exists()
    else:
        state.open_state(cluster, create=False)


def test_a_reference_that_leads_nowhere_is_the_users_mistake(cluster):
    with pytest.raises(ConfigError, match="PI_WIFI_PSK"):
        state.open_state(cluster).secrets(cluster, {})


def test_hashes_of_clear_text_are_kept(cluster):
    user = replace(cluster.users[0], password=SecretRef("env", "PASSWORD"))
    clear = replace(cluster, users=(user, cluster.users[1]))
    env = {**ENV, "PASSWORD": "correct horse"}

    first = state.open_state(clear).secrets(clear, env).passwords
    second = state.open_state(clear).secrets(clear, env).passwords
    third = state.open_state(clear).secrets(clear, {**env, "PASSWORD": "other"}).passwords

    assert first == second != third
    stored = json.loads((state.location(clear.source) / "passwords.json").read_bytes())
    assert stored == third
