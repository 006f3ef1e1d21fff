"""Files of the base that name its user: who is logged in by itself, and whom units and cron jobs run as.

Such a unit does not start when its user is gone (systemd.exec(5), `User=`: status 217/USER), and cron leaves out a line
of an unknown user (crontab(5)); both may run what lies in the home that has moved.
"""

from __future__ import annotations

import posixpath
import re
from functools import partial
from typing import TYPE_CHECKING

from piimage.components.textfile import rewritten
from piimage.delta import Absent, Symlink

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from piimage.cluster import User
    from piimage.components.accounts import Account
    from piimage.delta import Entry
    from piimage.facts import Facts

_UNITS = "/etc/systemd/system/"
#: Display managers: Debian's lightdm and gdm3, Fedora's gdm, sddm.
_LOGINS = ("/etc/lightdm/", "/etc/gdm3/", "/etc/gdm/", "/etc/sddm.conf.d/", "/etc/sddm.conf")
_CRON = ("/etc/cron.d/", "/etc/crontab")
#: `User` alone is sddm's key too. The sockets' are of systemd.socket(5).
_KEY = r"^[ \t]*(?:autologin-user|AutomaticLogin|User|SocketUser)[ \t]*=[ \t]*|--autologin[ =]"
_GROUP_KEY = r"^[ \t]*(?:Group|SocketGroup)[ \t]*=[ \t]*"
#: The five fields of a time, or one word for it (crontab(5)).
_TIME = r"^[ \t]*(?:@\w+|(?:[^\s#]\S*[ \t]+){4}\S+)[ \t]+"


def renamed(facts: Facts, old: Account, group: str, user: User) -> dict[str, Entry]:
    """The files that name `old`, with `user` in its place; `group` is the old private group, or `""`.

    Raises nothing: a file that says it in other words stays as it is.
    """
    entries: dict[str, Entry] = {}
    names = [(_KEY, old.name, user.name)]
    if group:
        names.append((_GROUP_KEY, group, user.group))
    timed = [(_TIME, old.name, user.name)]
    home = (old.home.rstrip("/"), user.home)
    places = ((_LOGINS, names, None), ((_UNITS,), names, home), (_CRON, timed, home))
    for folders, pairs, moved in places:
        for path in files(facts, *folders):
            text = facts.text(path)
            rest = _changed(text, pairs, moved)
            if rest != text:
                entries[path] = rewritten(facts, path, rest)
    return entries | dict(_instances(facts, old.name, user.name))


def _changed(text: str, pairs: Iterable[tuple[str, str, str]], home: tuple[str, str] | None) -> str:
    for key, old, new in pairs:
        pattern = rf"({key}){re.escape(old)}(?=\s|$)"
        text = re.sub(pattern, partial(_with, new), text, flags=re.MULTILINE)
    if home is not None:
        before, after = home
        text = re.sub(rf"(?<![\w./-]){re.escape(before)}(?![\w.-])", lambda _: after, text)
    return text


def _with(name: str, key: re.Match[str]) -> str:
    return key[1] + name


def _instances(facts: Facts, old: str, new: str) -> Iterator[tuple[str, Entry]]:
    """Units that are enabled for the user by name, such as `syncthing@pi.service`, which runs as `%i`."""
    if old == new:
        return
    for path, fact in facts.files.items():
        folder, _, name = path.rpartition("/")
        unit, _, kind = name.rpartition(".")
        if (
            fact.kind == "link"
            and fact.target
            and folder.startswith(_UNITS)
            and folder.endswith((".wants", ".requires"))
            and unit.endswith(f"@{old}")
        ):
            template = posixpath.basename(fact.target)
            if template == f"{unit.removesuffix(old)}.{kind}":
                yield path, Absent()
                yield f"{folder}/{unit.removesuffix(old)}{new}.{kind}", Symlink(fact.target)


def files(facts: Facts, *places: str) -> list[str]:
    """Regular files named by `places`, which are paths or, with a `/` at the end, all below them."""
    return sorted(
        path
        for path, fact in facts.files.items()
        if fact.kind == "file"
        and any(path == place or (place[-1] == "/" and path.startswith(place)) for place in places)
    )
