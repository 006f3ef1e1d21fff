"""Write docs/reference/cluster.md from the models of cluster.yaml.

    .venv/bin/python docs/generate.py           writes it
    .venv/bin/python docs/generate.py --check   fails if it is not up to date

Fields, defaults and bounds come from `piimage.spec.model`, so that they cannot differ from what
`piimage validate` does. Words come from the models' descriptions; what those do not say stands in
`MEANING` below, and a field that neither explains is an error.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Le
from pydantic_core import PydanticUndefined

from piimage.resolve import DEFAULT_GROUPS
from piimage.spec import model, references, types

TARGET = Path(__file__).parent / "reference" / "cluster.md"

#: What a value of a named type looks like, for people.
FORMS = {
    "Address": "IPv4 address",
    "Base": "see [base](#base)",
    "CmdlineToken": "token without spaces",
    "ConfigLine": "line",
    "Country": "two capital letters, ISO 3166",
    "Domain": "DNS name",
    "Gecos": "text without `:`, up to 256 characters",
    "HomePath": "absolute path",
    "HostName": "host name",
    "Keymap": "keyboard layout, such as `us`",
    "Locale": "UTF-8 locale",
    "Mac": "MAC address",
    "Mode": "octal mode in quotes",
    "NamePattern": "host name with `{n}` or `{n:02}`",
    "PackageName": "package name",
    "Password": "see [password](#password)",
    "ProfileName": "`NAME`, `role/NAME` or `board/NAME`",
    "Psk": "see [psk](#psk)",
    "SafeName": "name",
    "Server": "host name or address",
    "SharePath": "absolute path",
    "ShellPath": "absolute path",
    "SshKey": "see [ssh key](#ssh-key)",
    "Ssid": "text, up to 32 bytes",
    "Subnet": "IPv4 network, such as `10.1.10.0/24`",
    "TimezoneName": "name such as `Europe/Rome`",
    "UserName": "user name",
    "Version": "`1`",
}

#: What the models do not say.
MEANING = {
    "Spec.version": "of this format",
    "Spec.timezone": "of all nodes; the base must have it",
    "Spec.locale": "`LANG` of all nodes; made at first boot if the base lacks it",
    "Spec.keymap": "of the console; `layout` alone",
    "Spec.users": "the same accounts, with the same numbers, on every node; the cluster's own key "
    "(`NAME.state/id`) may log in as the first one",
    "Spec.root": "the account root",
    "Spec.network": "wire and Wi-Fi",
    "Spec.time": "where the time comes from",
    "Spec.ssh": "the ssh server",
    "Spec.mpi": "MPI on all nodes",
    "User.name": "login name",
    "User.shell": "must be in the base's /etc/shells, or end in `nologin` or `false`",
    "User.sudo": "how far sudo goes: not at all, with the user's password, without one",
    "Network.wired": "the wire between the nodes; without a `gateway` no route leads out of it",
    "Network.wifi": "the access point; has the default route",
    "Wired.subnet": "all nodes have an address in it",
    "Wifi.ssid": "name of the access point",
    "Wifi.psk": "its key; a passphrase is hashed at build time",
    "Wifi.country": "regulatory domain of the radio",
    "Ssh.password_authentication": "whether a password is enough to log in",
    "Ssh.x11_forwarding": "whether applications may draw on the user's screen; needs xauth in the base",
    "Share.path": "the same on the server and on all others",
    "Share.owner": "a user of cluster.yaml, or `root`; default: the first user",
    "Mpi.flavour": "which implementation",
}

#: The mappings in the order in which a reader meets them: heading, model, what it is.
SECTIONS: tuple[tuple[str, type[model.Model], str], ...] = (
    ("The file", model.Spec, "The top of cluster.yaml."),
    ("users", model.User, "A list, at least one."),
    ("root", model.Root, "Root is locked unless a password is given."),
    ("network", model.Network, ""),
    ("network.wired", model.Wired, ""),
    ("network.wifi", model.Wifi, ""),
    ("time", model.Time, ""),
    ("ssh", model.Ssh, ""),
    ("shares", model.Share, "A list."),
    ("mpi", model.Mpi, ""),
    (
        "roles",
        model.Role,
        (
            "Names (`head`, `worker` or your own) and what nodes of that role share. Exactly one node has "
            "the role `head`. Where no layer says otherwise, `target` is `multi-user` and `wifi` is `true`. "
            "Nodes in list form and profiles take these fields too; `base`, `packages`, `overlays` and "
            "`profiles` may also stand at the top of the file, for all nodes."
        ),
    ),
    ("nodes as a count", model.NodeCount, "`nodes: {count: 5}`: names and addresses count up."),
    (
        "nodes as a list",
        model.NodeEntry,
        (
            "One entry a node. Unless an entry names a role, the first node is the head and the others are "
            "workers. An entry takes all fields of a role too."
        ),
    ),
    ("blinkt", model.Blinkt, ""),
    (
        "profiles",
        model.Profile,
        (
            "A file `profiles/role/NAME.yaml` or `profiles/board/NAME.yaml`, beside cluster.yaml or shipped; the "
            "one beside cluster.yaml goes first. Later layers go over earlier ones, lists append: board profile, "
            "role profile, `profiles` of the file, the file, `profiles` of the role, the role, `profiles` of the "
            "node, the node."
        ),
    ),
)

HEAD = """\
# cluster.yaml

Every field, generated by `docs/generate.py` from the models that `piimage validate` uses. Fields marked `*` are
required. The same as JSON Schema: `piimage schema`, or [cluster.schema.json](cluster.schema.json). What holds
across fields (addresses within the subnet, no number twice, one head...) only `piimage validate` knows.

YAML is read by the rules of version 1.2: `NO` is text, `12:34` is text. A number with a leading zero, such as `0644`,
is refused, since readers differ about it: put a mode in quotes. Unknown keys, duplicate keys, tags and merge keys are
refused too.
"""

CLOSING = """\
## Names

A host name has lower-case letters, digits and `-`, up to 63, and is not all digits (RFC 1123). A user name has
lower-case letters, digits, `_` and `-`, up to 32, and starts with a letter or `_`.

Groups are logical names; those of a Pi (`video`, `gpio`, `i2c`...) are left out where the base lacks them, and so
say nothing wrong. A user without `groups` has: {groups}.

## Values that point elsewhere

Paths start where cluster.yaml lies; `~` is your home.

### base

- a name of the catalog or of the store, as `piimage base list` shows them: `debian-13`
- the path of an image, with a `/` or an image's suffix: `./lite.img.xz`; imported when first used
- `{path: ./lite.img.xz, sha256: ...}`: the same, refused unless the file has that digest
- `{url: ..., sha256: ...}`: an image on the web, downloaded when first used, refused unless the file there has that
  digest; `PIIMAGE_MIRROR` names a mirror, or a directory that holds the file

### password

- `locked`, or nothing: no password will do
- `env:NAME`: the environment variable; `file:PATH`: the file's text. Either a hash or clear text, which is hashed
- `{hash: "$y$..."}`: a crypt(5) hash, as `mkpasswd -m yescrypt` prints it
- the password itself: works, with a warning

### psk

- `env:NAME` or `file:PATH`: 64 hex digits, or a passphrase of 8 to 63 characters
- 64 hex digits, as `wpa_passphrase SSID` prints them; `{hash: ...}` is the same
- the passphrase itself: works, with a warning

### ssh key

- `file:PATH`: a file of public key lines, such as `file:~/.ssh/id_ed25519.pub`
- a public key line: `ssh-ed25519 AAAA...`
- `gh:NAME`, `lp:NAME`: the keys that GitHub or Launchpad shows for that name, fetched once and then kept in the
  [state directory](state.md); `piimage state refresh` asks again
"""

_NAMED = {
    id(mark): name
    for module in (types, references)
    for name, value in vars(module).items()
    for mark in getattr(value, "__metadata__", ())
}


def page() -> str:
    """The text of the page; raises `ValueError` for a field without an explanation, or with two."""
    known = {f"{m.__name__}.{field}" for _, m, _ in SECTIONS for field in _own(m)}
    strange = set(MEANING) - known
    if strange:
        raise ValueError(
            f"docs/generate.py explains what is no field: {', '.join(sorted(strange))}"
        )
    parts = [HEAD]
    for heading, of, words in SECTIONS:
        parts.append(_section(heading, of, words))
    groups = ", ".join(f"`{name}`" for name in DEFAULT_GROUPS)
    parts.append(CLOSING.replace("{groups}", groups))
    return "\n".join(parts)


def _own(of: type[model.Model]) -> list[str]:
    """Fields to list: those that nodes and profiles share with roles are listed there."""
    shared = set(model.Traits.model_fields) if of in (model.NodeEntry, model.Profile) else set()
    return [name for name in of.model_fields if name not in shared]


def _section(heading: str, of: type[model.Model], words: str) -> str:
    lines = [f"## {heading}", ""]
    if words:
        lines += [words, ""]
    lines += ["| field | value | default | meaning |", "|---|---|---|---|"]
    for name in _own(of):
        field = of.model_fields[name]
        star = " `*`" if field.is_required() else ""
        cells = [f"`{name}`{star}", _form(field.annotation, tuple(field.metadata)), _default(field)]
        lines.append("| " + " | ".join([*cells, _meaning(of, name)]) + " |")
    return "\n".join(lines) + "\n"


def _meaning(of: type[model.Model], name: str) -> str:
    said = of.model_fields[name].description
    ours = MEANING.get(f"{of.__name__}.{name}")
    if bool(said) == bool(ours):
        problem = "is explained twice" if said else "has no explanation"
        raise ValueError(f"{of.__name__}.{name} {problem}: see docs/generate.py")
    return said or ours or ""


def _form(kind: Any, marks: tuple[Any, ...] = ()) -> str:  # noqa: ANN401, PLR0911 -- annotations; one line each
    """The allowed values of an annotation, in words."""
    named = next((_NAMED[id(mark)] for mark in marks if id(mark) in _NAMED), None)
    if named is not None:
        return FORMS[named]
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(_form(each, marks) for each in inner if each is not NoneType)
    if hasattr(kind, "__metadata__"):
        return _form(kind.__origin__, kind.__metadata__)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin is list:
        return f"list: {_form(inner[0])}"
    if origin is dict:
        return f"mapping of names, {_form(inner[1])}"
    if isinstance(kind, type) and issubclass(kind, model.Model):
        heading = next(heading for heading, of, _ in SECTIONS if of is kind)
        return f"see [{heading}](#{heading.replace('.', '').replace(' ', '-')})"
    return {bool: "`true` or `false`", int: _bounds(marks), str: "text"}[kind]


def _bounds(marks: tuple[Any, ...]) -> str:
    low = next((mark.ge for mark in marks if isinstance(mark, Ge)), None)
    high = next((mark.le for mark in marks if isinstance(mark, Le)), None)
    if high is None:
        return f"number from {low}"
    return f"number, {low} to {high}"


def _default(field: Any) -> str:  # noqa: ANN401 -- pydantic's FieldInfo
    value = field.default
    if value is PydanticUndefined or value is None or isinstance(value, model.Model):
        return ""
    if value in ([], {}, ""):
        return "none" if value != "" else ""
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{value}`"


def main() -> None:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description="Write docs/reference/cluster.md.")
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    check = parser.parse_args().check
    text = page()
    current = TARGET.read_text(encoding="utf-8") if TARGET.exists() else ""
    if check and text != current:
        sys.exit(f"{TARGET.name} is not up to date: run `docs/generate.py`")
    if not check and text != current:
        TARGET.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
