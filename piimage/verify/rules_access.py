"""Rules about who gets in and who may do what: accounts, sudo, the ssh server, keys, secrets."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from piimage.bases.units import ADMIN, VENDOR
from piimage.distros.openssh import reads_drop_ins, split
from piimage.verify.catalog import Finding
from piimage.verify.sshd_words import SSHD_WORDS, wrong_value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from piimage.verify.view import View

#: Fields of a line, of passwd(5) and its like.
_FIELDS = {"/etc/passwd": 7, "/etc/shadow": 9, "/etc/group": 4, "/etc/gshadow": 4}
_FIRST_HUMAN, _NOBODY = 1000, 65534
_SSHD, _SSHD_FOLDER = "/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d"
_SUDOERS, _SUDO_FOLDER = "/etc/sudoers", "/etc/sudoers.d"
_OTHERS_WRITE, _GROUP_WRITE, _NOT_OWNER, _OTHERS_READ = 0o002, 0o022, 0o077, 0o004
_SERVERS = ("ssh.service", "sshd.service", "ssh.socket", "sshd.socket")
_SECRETS = (
    (re.compile(r"PRIVATE KEY-----"), "a private key"),
    (re.compile(r"\$(?:y|gy|7|6|5|2[aby])\$[./A-Za-z0-9$]{20,}"), "a password hash"),
    (re.compile(r"(?:psk|password)\W{1,4}[0-9a-f]{64}\b"), "a Wi-Fi key"),
)
_TEXT = (".txt", ".toml", ".yaml", ".yml", ".json", ".conf", ".sh", "-data", "-config", "userconf")


def accounts(view: View) -> Iterator[Finding]:
    """PI109: passwd, shadow, group and gshadow tell of the same accounts, each once."""
    tables = {path: _rows(view, path) for path in _FIELDS}
    for path, rows in tables.items():
        yield from _sound(path, rows, _FIELDS[path])
    passwd, shadow, group, gshadow = tables.values()
    yield from _differ("/etc/shadow", passwd, shadow, "account")
    if gshadow:
        yield from _differ("/etc/gshadow", group, gshadow, "group")
    gids = {row[2] for row in group if len(row) == _FIELDS["/etc/group"]}
    whole = [row for row in passwd if len(row) == _FIELDS["/etc/passwd"]]
    for row in whole:
        if row[3] not in gids:
            yield Finding("PI109", "/etc/passwd", f"the group {row[3]} of `{row[0]}` is none")
    for number, count in Counter(row[2] for row in whole).items():
        if count > 1:
            yield Finding("PI109", "/etc/passwd", f"{count} accounts have the number {number}")


def _sound(path: str, rows: list[list[str]], fields: int) -> Iterator[Finding]:
    for row in rows:
        if len(row) != fields:
            yield Finding("PI109", path, f"the line of `{row[0]}` has {len(row)} fields")
    for name, count in Counter(row[0] for row in rows).items():
        if count > 1:
            yield Finding("PI109", path, f"`{name}` is in it {count} times")


def _differ(path: str, one: list[list[str]], two: list[list[str]], what: str) -> Iterator[Finding]:
    left, right = {row[0] for row in one}, {row[0] for row in two}
    for name in sorted(left - right):
        yield Finding("PI109", path, f"the {what} `{name}` is missing in it")
    for name in sorted(right - left):
        yield Finding("PI109", path, f"`{name}` in it is no {what}")


def open_doors(view: View) -> Iterator[Finding]:
    """PI220: no empty password, no second root, no hash that all can read."""
    for path in ("/etc/passwd", "/etc/shadow"):
        for row in _rows(view, path):
            if len(row) > 1 and not row[1]:
                yield Finding("PI220", path, f"`{row[0]}` has an empty password")
    for row in _rows(view, "/etc/passwd"):
        if len(row) > 2 and row[2] == "0" and row[0] != "root":  # noqa: PLR2004 -- passwd(5)
            yield Finding("PI220", "/etc/passwd", f"`{row[0]}` is a second root")
    for path in ("/etc/shadow", "/etc/gshadow"):
        seen = view.root.get(path)
        if seen is not None and seen.mode & (_OTHERS_READ | _GROUP_WRITE):
            yield Finding(
                "PI220", path, f"its mode is {seen.mode:04o}: others may read or write it"
            )


def sudo(view: View) -> Iterator[Finding]:
    """PI216: files that sudo would refuse, or leave out, sudoers(5)."""
    text = view.text(_SUDOERS)
    if not text:
        if any(p.startswith(f"{_SUDO_FOLDER}/") for p in view.root):
            yield Finding("PI216", _SUDOERS, "it is missing or empty")
        return
    if not re.search(rf"^[@#]includedir\s+{_SUDO_FOLDER}\s*$", text, re.MULTILINE):
        yield Finding("PI216", _SUDOERS, f"it does not include {_SUDO_FOLDER}")
    for path in (_SUDOERS, *view.below(_SUDO_FOLDER)):
        seen = view.root.get(path)
        if seen is None:
            continue
        name = path.rpartition("/")[2]
        if path != _SUDOERS and ("." in name or name.endswith("~")):
            yield Finding("PI216", path, "sudo leaves out files with a dot or `~` in their names")
            continue
        if seen.uid or seen.mode & _OTHERS_WRITE or (seen.gid and seen.mode & 0o020):
            yield Finding("PI216", path, "sudo refuses it: others than root may write to it")
        yield from _sudo_lines(path, view.text(path))


def _sudo_lines(path: str, text: str) -> Iterator[Finding]:
    """Lines that are no rule, no alias, no setting. What is right is for visudo(8); this finds what is not."""
    for line in text.replace("\\\n", " ").splitlines():
        words = line.split("#", 1)[0].strip()
        if not words or line.lstrip().startswith(("#", "@")):
            continue
        first = words.split()[0]
        known = first.startswith("Defaults") or first.endswith("_Alias") or "=" in words
        if not known or words.count("(") != words.count(")"):
            yield Finding("PI216", path, f"sudo cannot read the line that begins with `{first}`")
        elif (
            "=" in words and not first.startswith("Defaults") and not words.split("=", 1)[1].strip()
        ):
            yield Finding("PI216", path, f"the rule of `{first}` allows nothing")


def ssh_server(view: View) -> Iterator[Finding]:
    """PI215: some unit starts the server, and it is not masked."""
    links = [
        path for path in view.root
        if path.startswith(f"{ADMIN}/") and path.rpartition("/")[2] in _SERVERS and ".wants/" in path
    ]  # fmt: skip
    for name in _SERVERS[:2]:
        seen = view.root.get(f"{ADMIN}/{name}")
        if seen is not None and (
            seen.target == "/dev/null" or (seen.kind == "file" and not seen.size)
        ):
            yield Finding("PI215", f"{ADMIN}/{name}", "the ssh server is masked")
            return
    if not links and any(f"{VENDOR}/{name}" in view.root for name in _SERVERS):
        yield Finding("PI215", ADMIN, "nothing starts the ssh server")
    if "/etc/ssh/sshd_not_to_be_run" in view.root:
        yield Finding(
            "PI215", "/etc/ssh/sshd_not_to_be_run", "it keeps the ssh server from starting"
        )


def ssh_config(view: View) -> Iterator[Finding]:
    """PI217: keywords that sshd does not know keep it from starting; the first value of one counts."""
    if _SSHD not in view.root:
        return
    files = [path for path in view.below(_SSHD_FOLDER) if path.endswith(".conf")]
    if files and not reads_drop_ins(view.text(_SSHD), _SSHD_FOLDER):
        yield Finding("PI217", _SSHD, f"it does not include {_SSHD_FOLDER}")
    settings: dict[str, str] = {}
    for path in (*files, _SSHD):
        if view.root[path].uid or view.root[path].mode & _GROUP_WRITE:
            yield Finding("PI217", path, "others than root may write to it")
        inside = False
        for line in view.text(path).splitlines():
            word, value = split(line)
            if not word:
                continue
            if wrong := _refused(word, value):
                yield Finding("PI217", path, f"{wrong}, and would not start")
            inside = inside or word.lower() == "match"
            if not inside:
                settings.setdefault(word.lower(), value)
    yield from _settings(view, settings)


def _refused(word: str, value: str) -> str:
    """What sshd has against a line, if anything."""
    if word.lower() not in SSHD_WORDS:
        return f"sshd does not know `{word}`"
    if not value:
        return f"`{word}` has no value"
    allowed = wrong_value(word, value)
    return f"`{word} {value}`: sshd takes {allowed}" if allowed else ""


def _settings(view: View, settings: dict[str, str]) -> Iterator[Finding]:
    for word, value in (("permitrootlogin", "yes"), ("permitemptypasswords", "yes")):
        if settings.get(word, "").lower() == value:
            yield Finding("PI217", _SSHD, f"`{word} {value}` is in force")
    for word in ("hostkey", "hostcertificate"):
        path = settings.get(word)
        if path and path not in view.root:
            yield Finding("PI217", _SSHD, f"`{word}` names `{path}`, which is not there")


def homes(view: View) -> Iterator[Finding]:
    """PI218: sshd's StrictModes, and keys that ssh refuses to use."""
    for row in _rows(view, "/etc/passwd"):
        if len(row) < 6 or not row[2].isdigit():  # noqa: PLR2004 -- passwd(5)
            continue
        uid, home = int(row[2]), row[5]
        if not _FIRST_HUMAN <= uid < _NOBODY or row[-1].endswith(("nologin", "false")):
            continue
        seen = view.root.get(home)
        if seen is None:
            yield Finding("PI218", home, f"the home of `{row[0]}` is missing")
            continue
        yield from _private(view, home, uid, row[0])


def logins(view: View) -> Iterator[Finding]:
    """PI226: people get the shell that passwd names, and nothing keeps them out: login(1), pam_nologin(8)."""
    for row in _rows(view, "/etc/passwd"):
        if len(row) != _FIELDS["/etc/passwd"] or not row[2].isdigit():
            continue
        person = int(row[2]) == 0 or _FIRST_HUMAN <= int(row[2]) < _NOBODY
        if person and row[6] and not view.resolves(row[6]):
            yield Finding(
                "PI226", "/etc/passwd", f"`{row[0]}` has the shell `{row[6]}`, which is not there"
            )
    for path in ("/etc/nologin", "/var/run/nologin"):
        if path in view.root:
            yield Finding("PI226", path, "it keeps everybody out but root")


def _private(view: View, home: str, uid: int, name: str) -> Iterator[Finding]:
    folder = f"{home}/.ssh"
    for path in (home, folder, *view.below(folder)):
        seen = view.root.get(path)
        if seen is None or seen.kind == "link":
            continue
        if seen.uid != uid:
            yield Finding("PI218", path, f"it belongs to {seen.uid}, not to `{name}` ({uid})")
        if seen.mode & _GROUP_WRITE:
            yield Finding("PI218", path, f"its mode is {seen.mode:04o}: sshd lets nobody in")
        private = seen.kind == "file" and "PRIVATE KEY" in view.text(path)
        if private and seen.mode & _NOT_OWNER:
            yield Finding("PI218", path, f"its mode is {seen.mode:04o}: ssh does not use the key")


def secrets(view: View) -> Iterator[Finding]:
    """PI219: the FAT is readable for all; so are files below /etc and /home whose mode says so."""
    place = view.place.mountpoint
    for inside, seen in view.firmware.items():
        if seen.kind == "file" and inside.casefold().endswith(_TEXT):
            yield from _told(view, place + inside, "everybody")
    for path, seen in view.root.items():
        open_ = seen.kind == "file" and seen.mode & _OTHERS_READ and 0 < seen.size < 1 << 20
        if open_ and path.startswith(("/etc/ssh/", "/etc/NetworkManager/", "/etc/netplan/",
                                      "/etc/wpa_supplicant/", "/home/", "/var/lib/cloud/seed/")):  # fmt: skip
            yield from _told(view, path, "every user")


def _told(view: View, path: str, whom: str) -> Iterator[Finding]:
    text = view.text(path)
    for pattern, what in _SECRETS:
        if pattern.search(text):
            yield Finding("PI219", path, f"{whom} can read {what} in it")


def _rows(view: View, path: str) -> list[list[str]]:
    lines = view.text(path).splitlines()
    return [line.split(":") for line in lines if line.strip() and line[0] not in "#+-"]


RULES = (accounts, open_doors, sudo, ssh_server, ssh_config, homes, logins, secrets)
