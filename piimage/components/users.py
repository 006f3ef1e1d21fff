"""Users: the same accounts with the same numbers on every node, made or renamed offline.

Image phase: accounts (locked), homes with skeleton, sudoers, and room for authorized_keys.
Stamp: password hashes through cloud-init's `chpasswd`, and the keys themselves.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from piimage.cluster import Sudo
from piimage.components import slots, takeover
from piimage.components.accounts import Accounts
from piimage.components.contribution import Check, Contribution, Stamp
from piimage.components.seed_passwords import passwords
from piimage.components.textfile import rewritten, with_newline
from piimage.delta import Absent, Delta, Directory, File, Symlink, Tree
from piimage.distros.family import family
from piimage.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from piimage.cluster import Cluster, Node, Role, User
    from piimage.components.contribution import Secrets
    from piimage.delta import Entry
    from piimage.distros.family import Family
    from piimage.facts import Facts

_SKELETON = "/etc/skel"
_DATABASES = ("/etc/passwd", "/etc/shadow", "/etc/group")
_SUDOERS, _SUDOERS_FOLDER = "/etc/sudoers", "/etc/sudoers.d"
_INCLUDES = re.compile(rf"^[@#]includedir[ \t]+\"?{_SUDOERS_FOLDER}/?\"?[ \t]*$", re.MULTILINE)
#: A line that is neither empty, a comment, a setting nor an alias (sudoers(5)).
_RULE = re.compile(
    r"^[ \t]*(?!Defaults|(?:User|Runas|Host|Cmnd|Cmd)_Alias|[#@](?:include|[^0-9])|#$)\S",
    re.MULTILINE,
)
#: Shells that deny a login are in no /etc/shells, and rightly wanted for service accounts.
_NO_LOGIN = ("nologin", "false")
#: Where sshd looks for keys in a home (sshd_config(5), AuthorizedKeysFile).
_KEYS = ("authorized_keys", "authorized_keys2")
#: What sudoers(5) cannot take for an alias, a keyword or a number.
_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_-]*")


def lacking(cluster: Cluster, _role: Role, facts: Facts) -> tuple[str, ...]:
    """sudo, where somebody may use it and the base (Debian's images for the Raspberry Pi) comes without."""
    return ("sudo",) if _wants_sudo(cluster) and not facts.has(_SUDOERS) else ()


def _wants_sudo(cluster: Cluster) -> bool:
    return any(user.sudo is not Sudo.NONE for user in cluster.users)


def image(cluster: Cluster, _role: Role, facts: Facts) -> Contribution:
    """Accounts, homes, sudoers; raises `UnsupportedError` for what the base cannot hold."""
    if _wants_sudo(cluster) and not facts.has(_SUDOERS):
        raise UnsupportedError("the base has no sudo", hint="use a base with the package sudo")
    _check_databases(facts)
    distro, accounts = family(facts), Accounts(facts)
    taken = takeover.find(cluster.users, accounts)
    wizard = takeover.wizard(facts, accounts)
    entries: dict[str, Entry] = {}
    for user in cluster.users:
        if user.name in taken:
            done = takeover.apply(user, taken[user.name], accounts)
            entries |= takeover.traces(done, facts)
    for user in cluster.users:
        _check_shell(user, facts)
        _account(user, accounts, distro, facts)
        entries |= _home(user, facts, moved=isinstance(entries.get(user.home), Tree))
    entries |= _strangers(cluster, accounts, facts, entries)
    accounts.disable("root")
    accounts.lock_open_accounts(user.name for user in cluster.users)
    entries |= accounts.files()
    entries |= dict(
        _sudoers(cluster, accounts, distro, _others(facts, {**wizard.delta.entries, **entries}))
    )
    if facts.has(_SUDOERS):
        entries |= _including(facts, entries)
    checks = tuple(check for user in cluster.users for check in _checks(user))
    return Contribution(
        delta=wizard.delta.merge(Delta.of("users", entries), replacing=frozenset(entries)),
        enable=wizard.enable,
        mask=wizard.mask,
        cmdline_drop=wizard.cmdline_drop,
        checks=checks,
    )


def _strangers(
    cluster: Cluster, accounts: Accounts, facts: Facts, entries: Mapping[str, Entry]
) -> dict[str, Entry]:
    """Keys by which somebody gets in of whom cluster.yaml knows nothing: of root, of others, of a home that moves.

    Like passwords of the base's (`Accounts.lock_open_accounts`): who gets in is said by cluster.yaml alone.
    """
    homes = {account.home.rstrip("/"): account.home.rstrip("/") for account in accounts.accounts()}
    homes |= {"/root": "/root"}
    homes |= {user.home: user.home for user in cluster.users}
    homes |= {e.source: home for home, e in entries.items() if isinstance(e, Tree)}
    return {
        f"{home}/.ssh/{name}": Absent()
        for source, home in homes.items()
        for name in _KEYS
        if facts.has(f"{source}/.ssh/{name}") and f"{home}/.ssh/{name}" not in entries
    }


def _check_databases(facts: Facts) -> None:
    """Raise `UnsupportedError` where accounts are kept elsewhere: a file in that place would end all others."""
    for path in _DATABASES:
        seen = facts.files.get(path)
        if seen is None:
            found = "not there"
        elif seen.kind != "file":
            found = f"a {seen.kind}"
        else:
            found = "" if seen.text else "empty or too large"
        if found:
            raise UnsupportedError(
                f"the base does not keep its accounts in {path}: it is {found}",
                hint="use a base whose passwd, shadow and group are plain files",
            )


def _account(user: User, accounts: Accounts, distro: Family, facts: Facts) -> None:
    accounts.put_user(user)
    accounts.put_group(user.group, user.gid)
    accounts.join(user.name, _groups(user, accounts, distro, facts))
    if user.sudo is Sudo.PASSWORD:
        accounts.join(user.name, [distro.admin_group])
    else:
        accounts.leave(user.name, [distro.admin_group])


def _groups(user: User, accounts: Accounts, distro: Family, facts: Facts) -> list[str]:
    """Names of groups for the logical ones; hardware groups that the base lacks are left out."""
    found: list[str] = []
    for name in user.groups:
        if name in ("admin", "sudo", "wheel"):
            continue  # `sudo:` alone says who may become root
        names = distro.groups.get(name, (name,))
        if name not in distro.groups and accounts.gid(name) is None:
            raise UnsupportedError(
                f"group `{name}` of user `{user.name}` is not in the base ({facts.os.pretty})",
                hint=f"known everywhere: {', '.join(sorted(distro.groups))}",
            )
        found += [group for group in names if accounts.gid(group) is not None]
    return found


def _check_shell(user: User, facts: Facts) -> None:
    lines = map(
        str.strip, facts.text("/etc/shells").splitlines()
    )  # shells(5): comments begin with `#`
    shells = [line for line in lines if line.startswith("/")]
    if shells and user.shell not in shells and user.shell.rsplit("/", 1)[-1] not in _NO_LOGIN:
        raise UnsupportedError(
            f"shell `{user.shell}` of user `{user.name}` is not in the base's /etc/shells",
            hint=f"the base has {', '.join(shells)}",
        )


def _home(user: User, facts: Facts, *, moved: bool) -> dict[str, Entry]:
    """The home with the base's skeleton; a home that was moved keeps what it has."""
    uid, gid = user.uid, user.gid
    path, slot = slots.authorized_keys(user)
    private = Directory(0o700, uid, gid)
    entries: dict[str, Entry] = {f"{user.home}/.ssh": private, path: slot}
    if moved:
        return entries
    entries[user.home] = private
    entries[f"{user.home}/.Xauthority"] = Absent()
    for source, fact in facts.files.items():
        if not source.startswith(_SKELETON + "/"):
            continue
        target = user.home + source.removeprefix(_SKELETON)
        if target in entries:
            continue
        if fact.kind == "dir":
            entries[target] = Directory(fact.mode, uid, gid)
        elif fact.kind == "link" and fact.target is not None:
            entries[target] = Symlink(fact.target, uid, gid)
        elif fact.content is not None:
            entries[target] = File(fact.content, fact.mode, uid, gid)
    return entries


def _others(facts: Facts, entries: Mapping[str, Entry]) -> list[str]:
    """Names of the base's own files of rules for sudo that stay, those with nothing but settings left out."""
    found = []
    for path, fact in facts.files.items():
        folder, _, name = path.rpartition("/")
        read = folder == _SUDOERS_FOLDER and "." not in name and not name.endswith("~")
        if read and not isinstance(entries.get(path), Absent) and _RULE.search(fact.text):
            found.append(name)
    return found


def _including(facts: Facts, entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """/etc/sudoers, where it does not read our files as it is."""
    mine = entries.get(_SUDOERS)
    text = facts.text(_SUDOERS)
    if isinstance(mine, File):
        text = mine.content.decode(errors="surrogateescape")
    if _INCLUDES.search(text) or not text:
        return {}
    # the older form: sudo knows the other one from 1.9.1 on
    text = f"{with_newline(text)}#includedir {_SUDOERS_FOLDER}\n"
    return {_SUDOERS: rewritten(facts, _SUDOERS, text, mode=0o440)}


def _sudoers(
    cluster: Cluster, accounts: Accounts, distro: Family, others: Sequence[str]
) -> Iterator[tuple[str, Entry]]:
    """One file per user. A dot in the name of such a file would make sudo skip it (sudoers(5)).

    Of rules that match, the last one counts, and files are read in the order of their names: so ours come after
    `others`.
    """
    first = "zz" if any(name > "0" for name in others) else "0"
    has_admins = accounts.gid(distro.admin_group) is not None
    for index, user in enumerate(cluster.users):
        if user.sudo is Sudo.NONE or (user.sudo is Sudo.PASSWORD and has_admins):
            continue
        tag = "NOPASSWD: " if user.sudo is Sudo.NOPASSWD else ""
        who = user.name if _PLAIN_NAME.fullmatch(user.name) else f"#{user.uid}"
        path = f"{_SUDOERS_FOLDER}/{first}{10 + index}_{re.sub('[^A-Za-z0-9_-]', '_', user.name)}"
        yield path, File(f"{who} ALL=(ALL:ALL) {tag}ALL\n".encode(), mode=0o440)


def _checks(user: User) -> Iterator[Check]:
    yield Check(name=f"uid of {user.name}", argv=("id", "-u", user.name), expect=f"^{user.uid}$")
    yield Check(name=f"gid of {user.name}", argv=("id", "-g", user.name), expect=f"^{user.gid}$")
    if user.sudo is Sudo.NOPASSWD:
        yield Check(
            name=f"sudo of {user.name}",
            argv=("sudo", "-n", "id", "-u"),
            expect="^0$",
            user=user.name,
        )


def stamp(cluster: Cluster, _node: Node, facts: Facts, secrets: Secrets) -> Stamp:
    """Keys into slots, hashes into the seed; the cluster's key is for the first user only.

    Raises `UnsupportedError` for a hash that the base's cloud-init would take for the password itself.
    """
    filled: dict[str, bytes] = {}
    for index, user in enumerate(cluster.users):
        keys = list(secrets.authorized_keys.get(user.name, ()))
        if index == 0:
            keys.insert(0, secrets.cluster_public)
        path, _ = slots.authorized_keys(user)
        filled[path] = "".join(key.strip() + "\n" for key in dict.fromkeys(keys)).encode()
    names = [user.name for user in cluster.users] + ["root"]
    hashes = {name: secrets.passwords[name] for name in names if name in secrets.passwords}
    user_data = {"chpasswd": passwords(hashes, facts)} if hashes else {}
    return Stamp(slots=filled, user_data=user_data)
