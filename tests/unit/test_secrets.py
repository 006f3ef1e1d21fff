"""References followed: never a value in an error, the same bytes at every build."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import phony_facts
import pytest

from piimage.cluster import KeyRef, SecretRef, Wifi
from piimage.errors import ConfigError
from piimage.state import secrets
from piimage.state.imported_keys import Pin
from piimage.state.secrets import authorized_keys, password_hashes, reveal, wifi_psk

SECRET = "hunter2 and some more"
SHA512 = "$6$rounds=5000$saltsalt$" + "a" * 86
YESCRYPT = "$y$j9T$abcdefgh$" + "b" * 43


def cluster_with(password=None, *, root=None, psk=None, keys=()):
    made = phony_facts.cluster()
    user = replace(made.users[0], password=password, ssh_keys=keys)
    wifi = Wifi(ssid="IEEE", country="IT", psk=psk) if psk else None
    return replace(made, users=(user,), root_password=root, wifi=wifi)


@pytest.fixture
def few_rounds(monkeypatch):
    """Hashes that cost a hundredth: what is kept and what is made anew does not hang on their price."""
    monkeypatch.setattr(secrets, "_ROUNDS", 1000)


def written(tmp_path, content):
    path = tmp_path / "secret"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return SecretRef("file", str(path))


def test_each_kind_of_reference(tmp_path):
    assert reveal(SecretRef("clear", SECRET), {}, "x") == SECRET
    assert reveal(SecretRef("hash", SHA512), {}, "x") == SHA512
    assert reveal(SecretRef("env", "NAME"), {"NAME": SECRET}, "x") == SECRET
    assert reveal(written(tmp_path, f"{SECRET}\r\n"), {}, "x") == SECRET


@pytest.mark.parametrize("env", [{}, {"NAME": ""}])
def test_a_variable_that_is_not_set(env):
    with pytest.raises(ConfigError, match="`NAME` for the password of `federico` is not set"):
        password_hashes(cluster_with(SecretRef("env", "NAME")), env, {})


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        reveal(SecretRef("file", str(tmp_path / "absent")), {}, "x")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        reveal(SecretRef("file", str(tmp_path)), {}, "x")


def chain(error):
    """Everything that a report of the error could show."""
    texts = []
    while error is not None:
        texts += [str(error), repr(error), str(getattr(error, "hint", ""))]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return " ".join(texts)


@pytest.mark.parametrize(
    "content", [b"\xffhunter2", b"hunter2\nhunter2\n", b"hunter2\0", b"\n", b"", b"  \n"]
)
def test_no_value_in_an_error_about_a_password(tmp_path, content):
    with pytest.raises(ConfigError) as caught:
        password_hashes(cluster_with(written(tmp_path, content)), {}, {})

    assert "hunter2" not in chain(caught.value)


@pytest.mark.parametrize(
    "value", ["hunter2", "hunter2" * 10, "hunter2é hunter2", "hunter2\thunter2"]
)
def test_no_value_in_an_error_about_the_wifi(value):
    with pytest.raises(ConfigError) as caught:
        wifi_psk(cluster_with(psk=SecretRef("env", "PSK")), {"PSK": value})

    assert "hunter2" not in chain(caught.value)


def test_repr_of_a_reference_shows_nothing():
    assert SECRET not in repr(cluster_with(SecretRef("clear", SECRET)))


@pytest.mark.parametrize("known", [SHA512, YESCRYPT])
@pytest.mark.parametrize("kind", ["hash", "env"])
def test_a_hash_is_taken_as_it_is(known, kind):
    value = known if kind == "hash" else "NAME"

    hashes = password_hashes(cluster_with(SecretRef(kind, value)), {"NAME": known}, {})

    assert hashes == {"federico": known}


@pytest.mark.usefixtures("few_rounds")
@pytest.mark.parametrize("clear", [SECRET, "$ecret$", "$6$not a hash", "$y$x"])
@pytest.mark.parametrize("kind", ["clear", "env"])
def test_a_clear_text_is_hashed_and_the_hash_kept(clear, kind):
    value = clear if kind == "clear" else "NAME"
    cluster = cluster_with(SecretRef(kind, value), root=SecretRef(kind, value))

    first = password_hashes(cluster, {"NAME": clear}, {})
    again = password_hashes(cluster, {"NAME": clear}, first)
    other = password_hashes(cluster, {"NAME": clear}, {})

    assert set(first) == {"federico", "root"}
    assert first == again != other
    assert first["root"] != first["federico"]


def test_openssl_agrees_on_the_hash():
    made = password_hashes(cluster_with(SecretRef("clear", SECRET)), {}, {})["federico"]

    _, kind, rounds, salt, _ = made.split("$")
    assert rounds == "rounds=100000"
    argv = ["openssl", "passwd", f"-{kind}", "-salt", f"{rounds}${salt}", "-stdin"]
    done = subprocess.run(argv, input=SECRET, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == made


@pytest.mark.usefixtures("few_rounds")
@pytest.mark.parametrize("known", ["", "!", "$6$", "$6$broken", "$6$rounds=x$a$b", YESCRYPT])
def test_a_known_hash_that_is_none_is_replaced(known):
    made = password_hashes(cluster_with(SecretRef("clear", SECRET)), {}, {"federico": known})

    assert made["federico"].startswith("$6$")
    assert made["federico"] != known


def test_nobody_gets_a_password_who_has_none():
    assert password_hashes(cluster_with(), {}, {"federico": SHA512, "root": SHA512}) == {}


# IEEE 802.11i-2004, H.4.3: the test vectors of the passphrase-to-PSK mapping.
@pytest.mark.parametrize(
    ("ssid", "passphrase", "psk"),
    [
        ("IEEE", "password", "f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e"),
        (
            "ThisIsASSID",
            "ThisIsAPassword",
            "0dc0d6eb90555ed6419756b9a15ec3e3209b63df707dd508d14581f8982721af",
        ),
        ("Z" * 32, "a" * 32, "becb93866bb8c3832cb777c2f559807c8c59afcb6eae734885001300a981cc62"),
    ],
)
def test_the_standards_vectors(ssid, passphrase, psk):
    cluster = replace(
        phony_facts.cluster(), wifi=Wifi(ssid=ssid, country="IT", psk=SecretRef("env", "P"))
    )

    assert wifi_psk(cluster, {"P": passphrase}) == psk


def test_a_psk_is_taken_as_it_is(tmp_path):
    digits = "ABCDEF0123456789" * 4

    assert wifi_psk(cluster_with(psk=SecretRef("hash", digits)), {}) == digits.lower()
    assert wifi_psk(cluster_with(psk=written(tmp_path, digits + "\n")), {}) == digits.lower()


def test_no_psk_is_asked_for_where_nobody_has_wifi():
    role = replace(phony_facts.HEAD, wifi=False)
    cluster = phony_facts.cluster(head=role, worker=phony_facts.WORKER)

    assert wifi_psk(cluster, {}) is None
    assert wifi_psk(cluster_with(), {}) is None


LINE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBvV5Y0W fed@laptop"


def test_keys_from_files_and_lines(tmp_path):
    path = tmp_path / "keys.pub"
    path.write_text(f"# mine\n\n  # also mine\n{LINE}\r\n  {LINE}2  \n")
    cluster = cluster_with(keys=(KeyRef("file", str(path)), KeyRef("key", LINE), KeyRef("gh", "x")))

    pins = {"gh:x": Pin((f"{LINE}3", LINE), "2026-11-25T10:00:00Z"), "lp:y": Pin(("y",), "")}

    assert authorized_keys(cluster, pins) == {"federico": (LINE, f"{LINE}2", f"{LINE}3")}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        (b"\xff\xfe", "is not text"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", "is a private key"),
    ],
)
def test_a_key_file_that_is_none(tmp_path, content, words):
    path = tmp_path / "id"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ConfigError, match=words):
        authorized_keys(cluster_with(keys=(KeyRef("file", str(path)),)), {})
