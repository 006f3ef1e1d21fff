"""ssh keys and host certificates."""

from __future__ import annotations

import subprocess

import pytest

from piimage.state import keys

NAMES = ("10.0.0.1", "node0")


@pytest.fixture(scope="module")
def ca():
    return keys.load(keys.generate("ca")[0])


@pytest.fixture(scope="module")
def public():
    return keys.generate("node0")[1]


def test_a_pair_belongs_together_and_is_new_each_time():
    private, public = keys.generate("a comment")
    other, _ = keys.generate("a comment")

    assert private.startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----\n")
    assert public.startswith("ssh-ed25519 ")
    assert public.endswith(" a comment")
    assert keys._public_line(keys.load(private).public_key()) == public.rsplit(" ", 2)[0]
    assert private != other


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_other_kinds_of_keys_are_refused(tmp_path, kind):
    argv = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", tmp_path / "key"]
    subprocess.run(argv, check=True)

    with pytest.raises(ValueError, match="not an ed25519 key"):
        keys.load((tmp_path / "key").read_bytes())


def test_a_certificate_for_exactly_these_names(ca, public):
    line = keys.certify_host(ca, public, "node0", NAMES)

    assert keys.certifies(line, public, NAMES, ca)
    assert not keys.certifies(line, public, (*NAMES, "node0.lab"), ca)
    assert not keys.certifies(line, public, NAMES[:1], ca)
    assert not keys.certifies(line, keys.generate("x")[1], NAMES, ca)
    assert not keys.certifies(line, public, NAMES, keys.load(keys.generate("x")[0]))


def test_a_users_certificate_is_none(tmp_path, ca, public):
    (tmp_path / "ca").write_bytes(keys.generate("x")[0])
    (tmp_path / "ca").chmod(0o600)
    (tmp_path / "key.pub").write_text(public + "\n")
    argv = ["ssh-keygen", "-q", "-s", "ca", "-I", "x", "-n", ",".join(NAMES), "key.pub"]
    subprocess.run(argv, cwd=tmp_path, check=True)
    line = (tmp_path / "key-cert.pub").read_text()

    assert not keys.certifies(line, public, NAMES, keys.load((tmp_path / "ca").read_bytes()))


def test_a_host_certificate_of_ssh_keygen_is_one(tmp_path, public):
    (tmp_path / "ca").write_bytes(keys.generate("x")[0])
    (tmp_path / "ca").chmod(0o600)
    (tmp_path / "key.pub").write_text(public + "\n")
    argv = ["ssh-keygen", "-q", "-s", "ca", "-h", "-I", "x", "-n", ",".join(NAMES), "key.pub"]
    subprocess.run(argv, cwd=tmp_path, check=True)
    line = (tmp_path / "key-cert.pub").read_text()

    assert keys.certifies(line, public, NAMES, keys.load((tmp_path / "ca").read_bytes()))


@pytest.mark.parametrize("line", ["", "garbage", "ssh-ed25519 AAAA", "x y z"])
def test_what_is_no_certificate(ca, public, line):
    assert not keys.certifies(line, public, NAMES, ca)
    assert not keys.certifies(public, public, NAMES, ca)


def test_a_changed_certificate_is_none(ca, public):
    kind, text, *_ = keys.certify_host(ca, public, "node0", NAMES).split()
    at = len(text) - 20
    spoilt = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]

    assert not keys.certifies(f"{kind} {spoilt}", public, NAMES, ca)
