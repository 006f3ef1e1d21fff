"""ssh keys and host certificates, in OpenSSH's formats (PROTOCOL.certkeys), through `cryptography`."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PrivateKey = Ed25519PrivateKey

#: A certificate without end: boards without a clock start in 1970, and cards lie in drawers for years.
FOREVER = 2**64 - 1


def generate(comment: str) -> tuple[bytes, str]:
    """A new ed25519 pair: OpenSSH private PEM and the public line with `comment`."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    return private, f"{_public_line(key.public_key())} {comment}"


def load(private: bytes) -> PrivateKey:
    """Read an OpenSSH private PEM; raises `ValueError` for anything but an unencrypted ed25519 key."""
    try:
        key = serialization.load_ssh_private_key(private, password=None)
    except (TypeError, UnsupportedAlgorithm) as error:  # locked by a passphrase; of an unknown kind
        raise ValueError(str(error)) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("not an ed25519 key")  # noqa: TRY004 -- a value of the wrong kind in a file
    return key


def certify_host(ca: PrivateKey, public: str, key_id: str, principals: tuple[str, ...]) -> str:
    """A host certificate line for `public`, valid for `principals` and for all time."""
    key = serialization.load_ssh_public_key(public.encode())
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("not an ed25519 key")  # noqa: TRY004 -- a value of the wrong kind in a file
    builder = (
        serialization.SSHCertificateBuilder()
        .public_key(key)
        .type(serialization.SSHCertificateType.HOST)
        .key_id(key_id.encode())
        .serial(0)
        .valid_principals([name.encode() for name in principals])
        .valid_after(0)
        .valid_before(FOREVER)
    )
    return builder.sign(ca).public_bytes().decode()


def certifies(line: str, public: str, principals: tuple[str, ...], ca: PrivateKey) -> bool:
    """Whether certificate `line` is `ca`'s word for the host key `public` under exactly `principals` (sorted)."""
    try:
        certificate = serialization.load_ssh_public_identity(line.encode())
        if not isinstance(certificate, serialization.SSHCertificate):
            return False
        certificate.verify_cert_signature()
    except (ValueError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return (
        certificate.type is serialization.SSHCertificateType.HOST
        and _same(certificate.signature_key(), ca.public_key())
        and _same(certificate.public_key(), serialization.load_ssh_public_key(public.encode()))
        and tuple(sorted(p.decode() for p in certificate.valid_principals)) == principals
        and certificate.valid_before == FOREVER
    )


def _same(one: object, other: object) -> bool:
    return (
        isinstance(one, Ed25519PublicKey)
        and isinstance(other, Ed25519PublicKey)
        and one.public_bytes_raw() == other.public_bytes_raw()
    )


def _public_line(key: Ed25519PublicKey) -> str:
    return key.public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    ).decode()
