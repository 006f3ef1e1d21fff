"""The account databases as data: passwd, shadow, group, gshadow, subuid and subgid, edited as text.

Pure functions: the final files follow from the texts that facts hold and from the users of
cluster.yaml. No password hash is written here: every account that is made or taken over is locked
until the stamp's user-data sets its hash. The field `last change` of shadow(5) stays empty, so no
clock that starts in 1970 makes a password look expired.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from piimage.components.textfile import rewritten
from piimage.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from piimage.cluster import User
    from piimage.delta import Entry
    from piimage.facts import Facts

LOCKED = "!"
#: shadow(5): `*` never matches a hash; what Debian gives accounts that nobody logs in to.
DISABLED = "*"
FIRST_HUMAN, LAST_HUMAN = 1000, 59999
#: login.defs SUB_UID_MIN and SUB_UID_COUNT of Debian, Ubuntu and Fedora.
SUBID_FIRST, SUBID_COUNT = 100_000, 65_536

#: passwd(5): the password is in shadow(5).
_SHADOWED = "x"
_WIDTHS = {"passwd": 7, "shadow": 9, "group": 4, "gshadow": 4, "subuid": 3, "subgid": 3}

#: Where the databases lie.
PATHS = tuple(f"/etc/{name}" for name in _WIDTHS)

#: Lines that begin so tell of no account: nsswitch.conf(5), "Compatibility mode", and comments.
_NO_NAMES = "+-#"

Row = list[str]


@dataclass(frozen=True, slots=True)
class Account:
    """One line of passwd(5)."""

    name: str
    uid: int
    gid: int
    gecos: str
    home: str
    shell: str


class Accounts:
    """The six databases, open for edits; `files` gives the ones that the image has."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._rows: dict[str, list[Row]] = {
            name: [line.split(":") for line in _lines(facts.text(f"/etc/{name}"))]
            for name in _WIDTHS
        }

    def rows(self, name: str) -> list[Row]:
        """Well-formed rows of a database; others (comments, NIS markers) are kept but not shown."""
        return [
            row
            for row in self._rows[name]
            if len(row) == _WIDTHS[name] and row[0] and row[0][0] not in _NO_NAMES
        ]

    def account(self, name: str) -> Account | None:
        """The account of that name, or None."""
        return next((a for a in self.accounts() if a.name == name), None)

    def accounts(self) -> list[Account]:
        """Every account in file order."""
        return [
            Account(row[0], int(row[2]), int(row[3]), row[4], row[5], row[6])
            for row in self.rows("passwd")
            if row[2].isdigit() and row[3].isdigit()
        ]

    def gid(self, group: str) -> int | None:
        """The number of a group, or None when there is no such group."""
        return next(
            (int(r[2]) for r in self.rows("group") if r[0] == group and r[2].isdigit()), None
        )

    def group_name(self, gid: int) -> str | None:
        """The name of the group with that number, or None."""
        return next((row[0] for row in self.rows("group") if row[2] == str(gid)), None)

    def remove(self, name: str) -> None:
        """Forget the account and its private group; no error when there is none."""
        for database in ("passwd", "shadow", "subuid", "subgid"):
            self._drop(database, name)
        self._leave(name, None)
        if not any(row[0] == name and row[3] for row in self.rows("group")):
            self.remove_group(name)

    def remove_group(self, name: str) -> None:
        """Forget the group; no error when there is none."""
        for database in ("group", "gshadow"):
            self._drop(database, name)

    def rename(self, old: str, new: str) -> None:
        """Put `new` wherever `old` names the account, in all databases and memberships."""
        for database in ("passwd", "shadow", "subuid", "subgid"):
            for row in self.rows(database):
                row[0] = new if row[0] == old else row[0]
        for database, columns in (("group", (3,)), ("gshadow", (2, 3))):
            for row in self.rows(database):
                for column in columns:
                    names = [new if name == old else name for name in _names(row[column])]
                    row[column] = ",".join(dict.fromkeys(names))

    def renumber(self, name: str, uid: int, gid: int) -> None:
        """Give the account these numbers."""
        for row in self.rows("passwd"):
            if row[0] == name:
                row[2:4] = [str(uid), str(gid)]

    def rename_group(self, old: str, new: str, gid: int) -> None:
        """The group `old` becomes `new` with number `gid`."""
        for row in self.rows("group"):
            if row[0] == old:
                row[0], row[2] = new, str(gid)
        for row in self.rows("gshadow"):
            row[0] = new if row[0] == old else row[0]

    def put_group(self, name: str, gid: int) -> None:
        """Make sure that the group has this number; raises `UnsupportedError` on a collision."""
        now, other = self.gid(name), self.group_name(gid)
        if now is not None and now != gid:
            raise UnsupportedError(
                f"the base has a group `{name}` with gid {now}, cluster.yaml wants gid {gid}",
                hint="choose another group name, or the base's gid",
            )
        if other is not None and other != name:
            raise UnsupportedError(
                f"gid {gid} of group `{name}` belongs to the group `{other}` of the base",
                hint="choose a gid that the base does not use, from 1000 up",
            )
        if now is None:
            self._append("group", [name, "x", str(gid), ""])
            self._append("gshadow", [name, LOCKED, "", ""])

    def put_user(self, user: User) -> None:
        """Write the user's lines, locked; raises `UnsupportedError` when the uid is taken."""
        for account in self.accounts():
            if account.uid == user.uid and account.name != user.name:
                raise UnsupportedError(
                    f"uid {user.uid} of user `{user.name}` belongs to the account `{account.name}`"
                    " of the base",
                    hint="choose another uid, or take the account over with `rename_from`",
                )
        line = [user.name, "x", str(user.uid), str(user.gid), user.gecos, user.home, user.shell]
        self._put("passwd", line)
        self._put("shadow", [user.name, LOCKED, "", "0", "99999", "7", "", "", ""])
        for database in ("subuid", "subgid"):
            if not any(row[0] == user.name for row in self.rows(database)):
                self._append(
                    database, [user.name, str(self._free_subid(database)), str(SUBID_COUNT)]
                )

    def join(self, user: str, groups: Iterable[str]) -> None:
        """Add the user to groups that exist."""
        wanted = set(groups)
        for database in ("group", "gshadow"):
            for row in self.rows(database):
                if row[0] in wanted:
                    row[3] = ",".join(dict.fromkeys([*_names(row[3]), user]))

    def leave(self, user: str, groups: Iterable[str]) -> None:
        """Take the user out of these groups."""
        self._leave(user, set(groups))

    def disable(self, name: str) -> None:
        """No password opens this account."""
        for row in self.rows("shadow"):
            if row[0] == name and row[1][:1] not in (LOCKED, DISABLED):
                row[1] = DISABLED

    def lock_open_accounts(self, keep: Iterable[str]) -> None:
        """Close what the base left open: empty passwords, and stock ones but of `keep`.

        A password in passwd(5) itself counts, an empty one above all: it goes before shadow's (pam_unix(8) asks
        shadow only where the field is `x`). Those accounts get a line there, as by pwconv(8).
        """
        kept = set(keep)
        known = {row[0] for row in self.rows("shadow")}
        for row in self.rows("passwd"):
            if row[1] == _SHADOWED or row[1][:1] in (LOCKED, DISABLED):
                continue
            row[1] = _SHADOWED
            if row[0] not in known:
                self._append("shadow", [row[0], DISABLED, "", "0", "99999", "7", "", "", ""])
        for row in self.rows("shadow"):
            if row[0] not in kept:
                self.disable(row[0])

    def files(self) -> dict[str, Entry]:
        """The databases that the image has, as files with the modes and owners they have now."""
        return {
            f"/etc/{name}": rewritten(
                self._facts, f"/etc/{name}", "".join(":".join(r) + "\n" for r in rows)
            )
            for name, rows in self._rows.items()
            if self._facts.has(f"/etc/{name}")
        }

    def _put(self, database: str, line: Row) -> None:
        for row in self.rows(database):
            if row[0] == line[0]:
                row[:] = line
                return
        self._append(database, line)

    def _append(self, database: str, line: Row) -> None:
        self._rows[database].append(line)

    def _drop(self, database: str, name: str) -> None:
        self._rows[database] = [row for row in self._rows[database] if row[0] != name]

    def _leave(self, user: str, groups: set[str] | None) -> None:
        for database, columns in (("group", (3,)), ("gshadow", (2, 3))):
            for row in self.rows(database):
                if groups is None or row[0] in groups:
                    for column in columns:
                        row[column] = ",".join(n for n in _names(row[column]) if n != user)

    def _free_subid(self, database: str) -> int:
        ends = [
            int(row[1]) + int(row[2])
            for row in self.rows(database)
            if row[1].isdigit() and row[2].isdigit()
        ]
        return max([SUBID_FIRST, *ends])


def _lines(text: str) -> list[str]:
    """Lines as libc sees them: only a newline ends one, whatever else Unicode knows."""
    return text.removesuffix("\n").split("\n") if text else []


def _names(field: str) -> list[str]:
    return [name for name in field.split(",") if name]


def first_human(accounts: Accounts) -> Account | None:
    """The base's own first user: the lowest uid from 1000 up; nobody (65534) is none."""
    humans = [a for a in accounts.accounts() if FIRST_HUMAN <= a.uid <= LAST_HUMAN]
    return min(humans, key=lambda account: account.uid, default=None)
