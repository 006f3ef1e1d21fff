"""Signatures by keys of the tests' own, checked by the real gpgv."""

from __future__ import annotations

import re

import pytest
from phony_keys import Signer, signers
from phony_mirror import mirror

from piimage.bases import openpgp, trust
from piimage.bases.publishers import Publisher
from piimage.errors import ConfigError, FetchError, PiimageError, VerifyError

pytestmark = pytest.mark.processes
DATA = b"an image\n" * 100


@pytest.fixture(scope="module")
def people():
    with signers("alice", "bob") as found:
        yield found


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "config" / "piimage" / "keys"


def company(*keys, **more):
    return Publisher(
        name="company", title="Company", keys=tuple(k.fingerprint for k in keys), **more
    )


def files(tmp_path, signature, data=DATA):
    (tmp_path / "x.sig").write_bytes(signature)
    (tmp_path / "x").write_bytes(data)
    return tmp_path / "x.sig", tmp_path / "x"


def check(publisher, tmp_path, signature, data=DATA):
    return openpgp.check(publisher, *files(tmp_path, signature, data), about="`x`")


def test_a_key_that_was_added(people, tmp_path, place):
    alice, _ = people
    (added,) = trust.trust(alice.public(armor=True), {"company": company(alice)})

    signer = check(company(alice), tmp_path, alice.detached(DATA))

    assert signer.fingerprint == alice.fingerprint
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", signer.made)
    assert added.path == place / "company" / f"{alice.fingerprint}.gpg"
    assert added.path.stat().st_mode & 0o077 == 0
    assert added.key.owner == "alice <alice@example.org>"


def test_a_key_in_a_keyring_that_the_profile_names(people, tmp_path):
    alice, bob = people
    (tmp_path / "ring.gpg").write_bytes(bob.public() + alice.public())
    publisher = company(alice, keyrings=(tmp_path / "absent.gpg", tmp_path / "ring.gpg"))

    assert check(publisher, tmp_path, alice.detached(DATA)).fingerprint == alice.fingerprint


def test_another_key_of_that_keyring_may_not_sign(people, tmp_path):
    alice, bob = people
    (tmp_path / "ring.gpg").write_bytes(bob.public() + alice.public())
    publisher = company(alice, keyrings=(tmp_path / "ring.gpg",))

    with pytest.raises(VerifyError, match="may not sign for Company") as caught:
        check(publisher, tmp_path, bob.detached(DATA))

    assert bob.fingerprint in caught.value.hint


def test_without_the_key_the_error_says_which_and_how(people, tmp_path):
    alice, _ = people
    publisher = company(alice, key_url="https://example.org/key")

    with pytest.raises(VerifyError, match="with a key that is not here") as caught:
        check(publisher, tmp_path, alice.detached(DATA))

    assert openpgp.spaced(alice.fingerprint) in caught.value.message
    assert f"piimage base trust {alice.fingerprint}" in caught.value.hint
    assert "https://example.org/key" in caught.value.hint


def test_that_shows_before_the_signed_data_is_there(people, tmp_path):
    alice, bob = people
    signature, _ = files(tmp_path, alice.detached(DATA))

    with pytest.raises(VerifyError, match="with a key that is not here"):
        openpgp.lacking(company(alice), signature, about="`x`")
    with pytest.raises(VerifyError, match="neither here nor one of the keys"):
        openpgp.lacking(company(bob), signature, about="`x`")
    trust.trust(alice.public(), {"company": company(alice)})
    openpgp.lacking(company(alice), signature, about="`x`")
    signature.write_bytes(b"<html>")
    with pytest.raises(VerifyError, match="no signature that gpgv accepts"):
        openpgp.lacking(company(alice), signature, about="`x`")


def test_a_stranger(people, tmp_path):
    alice, bob = people

    with pytest.raises(VerifyError, match="neither here nor one of the keys of Company") as caught:
        check(company(alice), tmp_path, bob.detached(DATA))

    assert openpgp.spaced(bob.fingerprint) in caught.value.message


@pytest.mark.parametrize(
    "damage",
    [
        lambda alice: (alice.detached(DATA), DATA + b"x"),
        lambda alice: (alice.detached(b"other"), DATA),
        lambda alice: (alice.detached(DATA), b""),
    ],
)
def test_a_wrong_signature(people, tmp_path, damage):
    alice, _ = people
    trust.trust(alice.public(), {"company": company(alice)})

    with pytest.raises(VerifyError, match="the signature of `x` is wrong"):
        check(company(alice), tmp_path, *damage(alice))


@pytest.mark.parametrize(
    "signature",
    [
        lambda alice: b"",
        lambda alice: b"<html>no</html>",
        lambda alice: alice.detached(DATA)[:20],
        lambda alice: alice.public(),
        # Signed in themselves: gpgv would judge what is in them, and not our file.
        lambda alice: alice.inline(DATA),
        lambda alice: alice.clear(DATA),
    ],
    ids=["empty", "page", "cut", "key", "inline", "clear"],
)
def test_what_is_no_detached_signature(people, tmp_path, signature):
    alice, _ = people
    trust.trust(alice.public(), {"company": company(alice)})

    with pytest.raises(VerifyError, match="no signature that gpgv accepts"):
        check(company(alice), tmp_path, signature(alice))


def test_a_weak_digest(people, tmp_path):
    alice, _ = people
    trust.trust(alice.public(), {"company": company(alice)})
    signature = alice.detached(DATA, "--allow-weak-digest-algos", "--digest-algo", "SHA1")

    with pytest.raises(VerifyError, match="SHA1 algorithm are rejected"):
        check(company(alice), tmp_path, signature)


def test_an_old_and_a_new_key(people, tmp_path):
    alice, bob = people
    trust.trust(alice.public(), {"company": company(alice)})

    both = bob.detached(DATA) + alice.detached(DATA)

    assert check(company(alice), tmp_path, both).fingerprint == alice.fingerprint


def test_a_key_that_has_expired(people, tmp_path):
    mayfly = Signer(people[0].home, "mayfly", expires="1d", at="20240101T000000")
    trust.trust(mayfly.public(), {"company": company(mayfly)})

    with pytest.raises(VerifyError, match="a key that has expired"):
        check(company(mayfly), tmp_path, mayfly.detached(DATA))


def test_a_clear_signed_text(people, tmp_path):
    alice, _ = people
    trust.trust(alice.public(), {"company": company(alice)})
    signed = alice.clear(b"# x: 7 bytes\nSHA256 (x) = 00\n- dash\n")
    (tmp_path / "sums").write_bytes(b"SHA256 (x) = evil\n" + signed + b"SHA256 (x) = evil\n")

    signer, text = openpgp.opened(company(alice), tmp_path / "sums", about="`sums`")

    assert signer.fingerprint == alice.fingerprint
    assert text == "# x: 7 bytes\nSHA256 (x) = 00\n- dash\n"


def test_a_clear_signed_text_that_was_changed(people, tmp_path):
    alice, _ = people
    trust.trust(alice.public(), {"company": company(alice)})
    signed = alice.clear(b"SHA256 (x) = 00\n").replace(b"= 00", b"= 01")
    (tmp_path / "sums").write_bytes(signed)

    with pytest.raises(VerifyError, match="the signature of `sums` is wrong"):
        openpgp.opened(company(alice), tmp_path / "sums", about="`sums`")


@pytest.mark.parametrize("order", [1, -1])
def test_two_texts_in_one_file(people, tmp_path, order):
    """One of them is somebody else's: none of that may come out as the publisher's."""
    alice, bob = people
    trust.trust(alice.public(), {"company": company(alice)})
    texts = [bob.clear(b"evil\n"), alice.clear(b"good\n")][::order]
    (tmp_path / "sums").write_bytes(b"".join(texts))

    with pytest.raises(VerifyError):
        openpgp.opened(company(alice), tmp_path / "sums", about="`sums`")


def test_a_fingerprint_that_nobody_vouched_for_is_not_trusted(people, place):
    alice, bob = people

    with pytest.raises(PiimageError, match="no profile names a key of this file") as caught:
        trust.trust(bob.public(), {"company": company(alice)})

    assert openpgp.spaced(bob.fingerprint) in caught.value.message
    assert "--fingerprint" in caught.value.hint
    assert not place.exists()


def test_a_publisher_alone_does_not_vouch_for_a_key(people, place):
    alice, bob = people

    with pytest.raises(PiimageError, match="no profile names"):
        trust.trust(bob.public(), {"company": company(alice)}, publisher="company")

    assert not place.exists()


def test_a_fingerprint_that_the_user_gives(people, tmp_path):
    alice, bob = people
    one, other = company(alice), Publisher(name="other", title="Other")
    trust.trust(
        bob.public(), {"company": one, "other": other}, wanted=bob.fingerprint, publisher="company"
    )

    assert check(one, tmp_path, bob.detached(DATA)).fingerprint == bob.fingerprint
    with pytest.raises(VerifyError):
        check(other, tmp_path, bob.detached(DATA))


def test_a_file_with_another_key_than_the_one_asked_for(people):
    alice, bob = people

    with pytest.raises(PiimageError, match="that is another key than") as caught:
        trust.trust(bob.public(), {"company": company(alice)}, wanted=alice.fingerprint)

    assert openpgp.spaced(bob.fingerprint) in caught.value.hint


def test_one_key_of_many_is_kept_alone(people, place):
    alice, bob = people
    trust.trust(bob.public() + alice.public(), {"company": company(alice)})

    (kept,) = (place / "company").iterdir()
    assert [key.fingerprint for key in openpgp.read_keys(kept.read_bytes())] == [alice.fingerprint]


def test_a_secret_key_is_refused(people, place):
    alice, _ = people

    with pytest.raises(PiimageError, match="secret key"):
        trust.trust(alice.secret(), {"company": company(alice)})
    assert not place.exists()


@pytest.mark.parametrize("data", [b"", b"<html>", b"\x99\x01" + bytes(300)])
def test_what_is_no_key_file(people, data):
    with pytest.raises(PiimageError, match="no OpenPGP public key"):
        trust.trust(data, {"company": company(people[0])})


def test_an_unknown_publisher(people):
    with pytest.raises(ConfigError, match="`else` is not a publisher: `company`"):
        trust.trust(b"", {"company": company(people[0])}, publisher="else")


def test_a_key_from_a_server(people):
    alice, bob = people
    with mirror() as site:
        path = f"/pks/lookup?op=get&options=mr&search=0x{alice.fingerprint}"
        site.put(path, alice.public(armor=True))
        data = trust.from_server(alice.fingerprint, f"{site.url}/")
        with pytest.raises(FetchError, match="has no key"):
            trust.from_server(bob.fingerprint, site.url)

    assert openpgp.read_keys(data)[0].fingerprint == alice.fingerprint


def test_a_key_file_that_is_not_there(tmp_path):
    with pytest.raises(PiimageError, match="cannot read"):
        trust.from_file(tmp_path / "absent")
    with pytest.raises(ConfigError, match="is no key server"):
        trust.from_server("A" * 40, "hkps.example.org")


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("F4AA DD86 C468 7D69 AE04  543E 796C 114A D12B 2292", "F4AADD86C4687D69AE04543E796C114AD12B2292"),
        ("0xf4aadd86c4687d69ae04543e796c114ad12b2292", "F4AADD86C4687D69AE04543E796C114AD12B2292"),
        ("796C114AD12B2292", None),
        ("key.asc", None),
        ("", None),
    ],
)  # fmt: skip
def test_fingerprints_as_people_write_them(text, plain):
    assert openpgp.fingerprint(text) == plain
