"""The base's own first user: who it is, and every trace of its name outside the account databases.

Raspberry Pi OS ships `pi` together with files that name it (sudoers, autologin) and, since 2022, a
wizard that asks for another name at first boot and blocks tty1 until somebody answers (package
userconf-pi: `userconfig.service`, a `Banner` for sshd, on desktops a user of its own).
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from piimage.components import mentions
from piimage.components.accounts import Account, Accounts, first_human
from piimage.components.contribution import Contribution
from piimage.components.textfile import rewritten
from piimage.delta import Absent, Delta, Tree
from piimage.distros.boot_loader import command_line
from piimage.errors import UnsupportedError
from piimage.report import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from piimage.cluster import User
    from piimage.delta import Entry
    from piimage.facts import Facts

WIZARD = "rpi-first-boot-wizard"
_WIZARD_FILES = (
    "/etc/ssh/sshd_config.d/rename_user.conf",
    "/etc/sudoers.d/010_wiz-nopasswd",
    "/etc/xdg/autostart/piwiz.desktop",
)
#: Raspberry Pi OS's, and Fedora's: as long as it is enabled the text consoles wait for it (initial-setup.service is
#: `Before=getty-pre.target`), and it asks for a user and for root's password.
_WIZARD_UNITS = (
    "userconfig.service",
    "initial-setup.service",
    "initial-setup-reconfiguration.service",
)
#: Fedora's reconfiguration at the next boot.
_UNCONFIGURED = "/.unconfigured"
#: On the FAT: a name and a hash for the wizard; a whole configuration for the first boot up to bookworm; the script of
#: Raspberry Pi Imager 1.x, which makes users, sets passwords and the name; what is to come after all of these.
_FIRMWARE_FILES = ("userconf", "userconf.txt", "custom.toml", "firstrun.sh", "rpi-preseed.toml")
#: By these the script is run in place of a boot (systemd-run-generator(8)). Where it is not there, or mends what is no
#: longer so (trixie), the node never comes up.
_SCRIPT = re.compile(r"systemd\.run=\S*/firstrun\.sh")
_SCRIPT_KEYS = ("systemd.run", "systemd.run_success_action", "systemd.run_failure_action")
_SCRIPT_TARGET = "systemd.unit=kernel-command-line.target"
#: Directories below which no user's home is, file-hierarchy(7): with it the system's own files would move.
_SYSTEM = ("/boot/", "/dev/", "/etc/", "/proc/", "/run/", "/sys/", "/usr/")
#: Where Facts have every name, so that what they do not have is not there.
_LISTED = ("/home", "/srv", "/opt")
#: A tree that every system has: where there is no home to move, numbers of files elsewhere still change.
_STAYS = "/etc"
#: Where a file is called like its user.
_NAMED = ("/var/mail", "/var/spool/cron/crontabs", "/var/lib/systemd/linger")


@dataclass(frozen=True, slots=True)
class Takeover:
    """`user` takes over the base's account `old`; `group` is the name of its private group, if any, `gids` maps it."""

    user: User
    old: Account
    gids: tuple[tuple[int, int], ...]
    group: str = ""


def find(users: Sequence[User], accounts: Accounts) -> dict[str, Account]:
    """User name -> account of the base that the user takes over.

    A user named like an account of the base takes that one over. Raises `UnsupportedError` for
    a `rename_from` that the base lacks, and for a user named like one of its system accounts.
    """
    found: dict[str, Account] = {}
    for user in users:
        account = accounts.account(user.name) or _source(user, accounts)
        if account is not None and account.uid < 1000:  # noqa: PLR2004 -- login.defs UID_MIN
            raise UnsupportedError(
                f"user `{user.name}` is a system account of the base (uid {account.uid})",
                hint="choose another name",
            )
        if account is not None and account not in found.values():
            found[user.name] = account
    return found


def _source(user: User, accounts: Accounts) -> Account | None:
    if user.rename_from is None:
        return None
    if user.rename_from == "auto":
        return first_human(accounts)
    account = accounts.account(user.rename_from)
    if account is None:
        raise UnsupportedError(
            f"user `{user.name}` is to be renamed from `{user.rename_from}`, which the base"
            " does not have",
            hint="`rename_from: auto` takes the base's own first user if there is one",
        )
    return account


def apply(user: User, old: Account, accounts: Accounts) -> Takeover:
    """Rename and renumber the account and, where it is the account's own, its group."""
    gids: tuple[tuple[int, int], ...] = ()
    group = accounts.group_name(old.gid)
    if group == old.name:
        gids = ((old.gid, user.gid),)
        if accounts.gid(user.group) not in (None, old.gid) and user.group != group:
            accounts.remove_group(group)
        else:
            _free(accounts, user, group)
            accounts.rename_group(group, user.group, user.gid)
    accounts.rename(old.name, user.name)
    accounts.renumber(user.name, user.uid, user.gid)
    own = group if gids and group is not None else ""
    return Takeover(user, old, tuple(pair for pair in gids if pair[0] != pair[1]), own)


def _free(accounts: Accounts, user: User, group: str) -> None:
    other = accounts.group_name(user.gid)
    if other not in (None, group):
        raise UnsupportedError(
            f"gid {user.gid} of group `{user.group}` belongs to the group `{other}` of the base",
            hint="choose a gid that the base does not use, from 1000 up",
        )


def traces(takeover: Takeover, facts: Facts) -> dict[str, Entry]:
    """The moved home, and the files of the base that name the old user."""
    old, user = takeover.old, takeover.user
    entries = _moved(takeover, facts)
    entries[f"{user.home}/.Xauthority"] = Absent()
    settings = f"/var/lib/AccountsService/users/{old.name}"
    if facts.has(settings) and old.name != user.name:
        entries[settings] = Absent()
    for place in _NAMED if old.name != user.name else ():
        if facts.has(f"{place}/{old.name}"):
            entries[f"{place}/{user.name}"] = Tree(f"{place}/{old.name}")
    entries |= _sudoers(old.name, facts)
    entries |= mentions.renamed(facts, old, takeover.group, user)
    return entries


def _moved(takeover: Takeover, facts: Facts) -> dict[str, Entry]:
    """The home where it is to be, and every file with the new numbers; raises `UnsupportedError` for no plain home.

    What passwd says is the image's word: a home in the place of a system's directory would take that along, and one
    that is a link would lead what is written there out of the tree.
    """
    old, user = takeover.old, takeover.user
    uids = ((old.uid, user.uid),) if old.uid != user.uid else ()
    home = old.home.rstrip("/")
    seen = facts.files.get(home)
    plain = posixpath.normpath(home) == home and home.startswith("/") and home.count("/") > 1
    if not plain or home.startswith(_SYSTEM) or (seen is not None and seen.kind != "dir"):
        raise UnsupportedError(
            f"user `{user.name}` is to be renamed from `{old.name}`, whose home {shown(old.home)} is "
            + (f"a {seen.kind}, not a directory" if seen and plain else "no directory of its own"),
            hint="use an image whose user has a plain home, such as `/home/NAME`",
        )
    if seen is None and posixpath.dirname(home) in _LISTED:
        return {_STAYS: Tree(_STAYS, uids, takeover.gids)} if uids or takeover.gids else {}
    return {user.home: Tree(home, uids, takeover.gids)}


def _sudoers(name: str, facts: Facts) -> dict[str, Entry]:
    """The old user's privileges end: cluster.yaml says what the new one may do."""
    entries: dict[str, Entry] = {}
    rule = re.compile(rf"^[ \t]*{re.escape(name)}[ \t].*\n?", re.MULTILINE)
    for path in mentions.files(facts, "/etc/sudoers", "/etc/sudoers.d/"):
        text = facts.text(path)
        rest = rule.sub("", text)
        if rest == text:
            continue
        rules = [line for line in rest.splitlines() if line.strip() and line.strip()[0] != "#"]
        keep = bool(rules) or path == "/etc/sudoers"
        entries[path] = rewritten(facts, path, rest, mode=0o440) if keep else Absent()
    return entries


def wizard(facts: Facts, accounts: Accounts) -> Contribution:
    """The first-boot wizard taken out, as its `cancel-rename` does it on a board."""
    entries: dict[str, Entry] = {path: Absent() for path in _WIZARD_FILES if facts.has(path)}
    for name in _FIRMWARE_FILES:
        path = f"{facts.firmware}/{name}"
        if facts.has(path):
            entries[path] = Absent()
    account = accounts.account(WIZARD)
    if account is not None:
        accounts.remove(WIZARD)
        if posixpath.dirname(account.home) == "/home":
            entries[account.home] = Absent()
    lightdm = "/etc/lightdm/lightdm.conf"
    text = facts.text(lightdm)
    rest = re.sub(rf"^(?=autologin-user={WIZARD}\b)", "#", text, flags=re.MULTILINE)
    if rest != text:
        entries[lightdm] = rewritten(facts, lightdm, rest)
    if facts.has(_UNCONFIGURED):
        entries[_UNCONFIGURED] = Absent()
    present = "userconfig.service" in facts.units
    scripted = any(map(_SCRIPT.fullmatch, command_line(facts).split()))
    return Contribution(
        delta=Delta.of("users", entries),
        cmdline_drop=(*_SCRIPT_KEYS, _SCRIPT_TARGET) if scripted else (),
        mask=tuple(unit for unit in _WIZARD_UNITS if unit in facts.units),
        enable=("getty@tty1.service",) if present else (),
    )
