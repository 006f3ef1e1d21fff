"""Users: names and numbers that collide, with each other or with what the base has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.report import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from piimage.facts import Facts
    from piimage.spec.checks.outside import Outside
    from piimage.spec.draft import Draft
    from piimage.spec.place import FieldPath

#: Accounts and groups that Debian, Raspberry Pi OS, Ubuntu or Fedora have or that packages add
#: (base-passwd; chrony, nfs-common, rpcbind...).
RESERVED = frozenset(
    """
    root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats
    nobody nogroup operator halt shutdown adm ftp tty disk kmem dialout fax voice cdrom floppy tape
    sudo wheel audio dip
    shadow utmp video sasl plugdev staff users input sgx render kvm netdev messagebus sshd polkitd
    tss dbus
    chrony _chrony _apt _rpc rpc rpcuser statd avahi rtkit lightdm pulse geoclue dnsmasq syslog
    uuidd
    tcpdump landscape pollinate systemd-network systemd-resolve systemd-timesync systemd-journal
    systemd-coredump systemd-oom gpio i2c spi crontab ssl-cert ssh _ssh
    """.split()
)
_SYSTEM = 1000
_NO_HOMES = frozenset(
    "bin boot dev etc lib lib32 lib64 libx32 proc root run sbin sys tmp usr".split()
)


def check(draft: Draft, outside: Outside) -> None:
    """Add what is wrong with the users."""
    _duplicates(draft, "name", "name")
    _duplicates(draft, "uid", "UID")
    _duplicates(draft, "home", "home directory")
    _duplicates(draft, "rename_from", "image's user to rename")
    _groups(draft)
    for number, user in enumerate(draft.spec.users):
        path: FieldPath = ("users", number)
        if user.name in RESERVED:
            message = f"{shown(user.name)} is a system account's name"
            hint = (
                "root's password is set by `root`" if user.name == "root" else "choose another name"
            )
            draft.error((*path, "name"), message, hint, "reserved-name")
        if user.group in RESERVED:
            message = f"{shown(user.group)} is a system group's name"
            draft.error((*path, "group"), message, "list it under `groups`", "reserved-name")
        _home(draft, number)
        _renamed(draft, number)
        if user.uid < _SYSTEM:
            message = f"UID {user.uid} is in the range of system accounts"
            draft.warning((*path, "uid"), message, "people have 1000 to 59999", "system-uid")
    for facts in outside.facts:
        _with_base(draft, facts)


def _home(draft: Draft, number: int) -> None:
    """A home is neither in the system's directories nor in another's home."""
    user = draft.spec.users[number]
    home = user.home or f"/home/{user.name}"
    path: FieldPath = ("users", number, "home")
    if home == "/home" or home.split("/")[1] in _NO_HOMES:
        message = f"{shown(home)} belongs to the system"
        draft.error(path, message, f"for example {shown('/home/' + user.name)}", "home-path")
    for other in draft.spec.users:
        if home.startswith((other.home or f"/home/{other.name}") + "/"):
            message = f"{shown(home)} lies in the home directory of {shown(other.name)}"
            draft.error(path, message, "homes stand side by side", "home-path")


def _renamed(draft: Draft, number: int) -> None:
    """The image's user that is renamed is a person's, and is not another user of the cluster."""
    user = draft.spec.users[number]
    path: FieldPath = ("users", number, "rename_from")
    if user.rename_from in RESERVED:
        message = f"{shown(user.rename_from)} is a system account, which keeps its name"
        draft.error(path, message, "`auto` takes the image's own first user", "rename-from")
    elif user.rename_from != user.name and user.rename_from in {u.name for u in draft.spec.users}:
        message = f"{shown(user.rename_from)} is a user of this cluster too"
        draft.error(path, message, "name the image's own user", "rename-from")


def _duplicates(draft: Draft, field: str, what: str) -> None:
    first: dict[object, int] = {}
    for number, user in enumerate(draft.spec.users):
        value = getattr(user, field)
        if value is None:
            continue
        other = first.setdefault(value, number)
        if other == number:
            continue
        name = draft.spec.users[other].name
        line = draft.document.span(draft.origin(("users", other, field))).line + 1
        message = f"{shown(value)} is the {what} of two users"
        hint = f"{shown(name)} has it on line {line}"
        draft.error(("users", number, field), message, hint, f"duplicate-{field.replace('_', '-')}")


def _groups(draft: Draft) -> None:
    """A group has one number, a number one group, whichever user brings it."""
    by_gid: dict[int, str] = {}
    by_name: dict[str, int] = {}
    uids = [user.uid for user in draft.spec.users]
    for number, user in enumerate(draft.spec.users):
        gid = user.uid if user.gid is None else user.gid
        name = user.group or user.name
        path: FieldPath = ("users", number, "gid" if user.gid is not None else "uid")
        if by_gid.setdefault(gid, name) != name:
            if uids.count(user.uid) == 1 or user.gid is not None:
                message = f"GID {gid} is of the groups {shown(by_gid[gid])} and {shown(name)}"
                draft.error(path, message, "give one of them another `gid`", "duplicate-gid")
        elif by_name.setdefault(name, gid) != gid and user.group:
            message = f"the group {shown(name)} has the GIDs {by_name[name]} and {gid}"
            draft.error(
                (*path[:2], "group"), message, "give both users the same `gid`", "group-gid"
            )


def _with_base(draft: Draft, facts: Facts) -> None:
    """Accounts of the base that are in the way; those that are renamed are not."""
    accounts = dict(_entries(facts.text("/etc/passwd")))
    groups = dict(_entries(facts.text("/etc/group")))
    people = sorted((uid, name) for name, uid in accounts.items() if uid in range(_SYSTEM, 60000))
    own = people[0][1] if people else ""
    users = draft.spec.users
    leaving = {own if user.rename_from == "auto" else user.rename_from for user in users}
    mine = {user.name for user in users} | {user.group or user.name for user in users}
    for number, user in enumerate(users):
        path: FieldPath = ("users", number)
        gone = leaving | mine
        other = next((n for n, u in accounts.items() if u == user.uid and n not in gone), None)
        if other is not None:
            message = f"UID {user.uid} is {shown(other)} in the base"
            hint = f"choose another, or say `rename_from: {other}`"
            draft.error((*path, "uid"), message, hint, "base-uid")
        gid = user.uid if user.gid is None else user.gid
        group = next((n for n, g in groups.items() if g == gid and n not in gone), None)
        if group is not None and group not in {other, user.group or user.name}:
            message = f"GID {gid} is the group {shown(group)} in the base"
            field = "gid" if user.gid is not None else "uid"
            draft.error((*path, field), message, "choose another `gid`", "base-gid")
        if accounts.get(user.name, _SYSTEM) < _SYSTEM and user.name not in RESERVED:
            message = f"{shown(user.name)} is a system account of the base"
            draft.error((*path, "name"), message, "choose another name", "reserved-name")
        if user.rename_from not in {None, "auto"} and user.rename_from not in {
            *accounts,
            user.name,
        }:
            known = ", ".join(f"`{name}`" for _, name in people) or "none"
            message = f"the base has no user {shown(user.rename_from)}"
            draft.error((*path, "rename_from"), message, f"its users: {known}", "rename-from")


def _entries(text: str) -> Iterator[tuple[str, int]]:
    """Name and number of each line of /etc/passwd or /etc/group."""
    for line in text.splitlines():
        parts = line.split(":")
        if len(parts) > 2 and parts[2].isdigit():  # noqa: PLR2004 -- name, password, number
            yield parts[0], int(parts[2])
