"""Password hashes in a seed's user-data, in words that the base's cloud-init understands.

`users` with `type: hash` is known from 22.3 on (cloud-init, cc_set_passwords.py). Before that there is `list`, which
tells a hash from a password by how it begins, and knows no newer method than SHA-512.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from piimage.components.stand_ins import stands_in
from piimage.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from piimage.facts import Facts

_KNOWS_TYPES = (22, 3)
_OLD_HASH = re.compile(r"\$(1|2a|2y|5|6)(\$.+){2}")


def passwords(hashes: Mapping[str, str], facts: Facts) -> dict[str, Any]:
    """The value of `chpasswd` for `{account: hash}`.

    Raises `UnsupportedError` for a hash that an old cloud-init would take for the password itself.
    """
    if _version(facts) >= _KNOWS_TYPES:
        users = [{"name": n, "password": h, "type": "hash"} for n, h in hashes.items()]
        return {"expire": False, "users": users}
    for name, found in hashes.items():
        if not _OLD_HASH.match(found) and not stands_in(found):
            raise UnsupportedError(
                f"cloud-init {facts.cloud_init} of the base does not know the method of the"
                f" password hash of `{name}`, and would take the hash for the password",
                hint="make it with `mkpasswd -m sha512crypt`",
            )
    return {"expire": False, "list": [f"{name}:{found}" for name, found in hashes.items()]}


def _version(facts: Facts) -> tuple[int, int]:
    found = re.match(r"(?:\d+:)?(\d+)\.(\d+)", facts.cloud_init or "")
    return (int(found[1]), int(found[2])) if found else _KNOWS_TYPES
