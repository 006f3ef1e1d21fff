"""A private root for the host's apt, with the image's own sources, keys, pins and installed packages.

Nothing of an image's apt configuration but data comes along: its apt.conf may name programs to run, and its sources
may switch signature checks off. Formats: sources.list(5), apt.conf(5), apt_preferences(5).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from piimage.disk.rootfs import open_tree
from piimage.run import run

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from piimage.facts import Facts

STATUS, EXTENDED = "var/lib/dpkg/status", "var/lib/apt/extended_states"
_ARCHITECTURES = "/var/lib/dpkg/arch"
_SOURCES = re.compile(r"/etc/apt/(sources\.list|sources\.list\.d/[^/]+\.(list|sources))")
_KEPT = re.compile(
    r"/etc/apt/(trusted\.gpg|trusted\.gpg\.d/.*|keyrings/.*|preferences|preferences\.d/.*|mirrors/.*)"
)
#: How this machine reaches the network; the rest of its apt configuration is its own affair.
_HOST_OPTIONS = re.compile(
    r"Acquire::(https?|ftp|tor|tor\+https?|socks5h|Retries|ForceIPv[46])(::[^ ]*)? \".+\";"
)
#: Options with which a source could do without a valid signature.
_UNSIGNED = r"(trusted|allow-(?:insecure|weak|downgrade-to-insecure))"
_LOCAL = r"(file|copy|cdrom):"
_DIRECTORIES = (
    "etc/apt/apt.conf.d", "etc/apt/auth.conf.d", "etc/apt/preferences.d", "etc/apt/sources.list.d",
    "etc/apt/trusted.gpg.d", "var/lib/apt/lists/partial", "var/lib/dpkg", "var/cache/apt/archives/partial",
    "var/log/apt",
)  # fmt: skip
_CONFIGURATION = """\
Dir "{root}/";
Dir::State::status "{root}/{status}";
Dir::Bin::methods "/usr/lib/apt/methods";
Dir::Log "{root}/var/log/apt";
APT::Architecture "{architecture}";
APT::Architectures {{ {architectures} }};
APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Get::Never-Include-Phased-Updates "true";
APT::Get::AllowUnauthenticated "false";
APT::Sandbox::User "";
APT::Update::Error-Mode "any";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
"""


def write_root(root: Path, image: Path, facts: Facts) -> dict[str, str]:
    """Fill the empty directory `root` from the root file system of `image`; return apt's environment.

    `root` is a path without blanks, since lists in sources(5) are separated by them. Raises `ImageError` for an
    image that is damaged.
    """
    for name in _DIRECTORIES:
        (root / name).mkdir(parents=True)
    start = facts.table.partition(facts.mounts["/"]).start
    with open_tree(image, start) as tree:
        listing = tree.list_tree(["/etc/apt"], 3)
        texts = tree.read_files(path for path in listing if _SOURCES.fullmatch(path))
        sources = {
            path: own_sources(path, text.decode(errors="replace"), root)
            for path, text in texts.items()
        }
        keys = {key for _, found in sources.values() for key in found}
        kept = {path for path in listing if _KEPT.fullmatch(path)}
        databases = (f"/{STATUS}", f"/{EXTENDED}", _ARCHITECTURES)
        contents = tree.read_files(sorted(kept | keys | set(databases)), limit=256 << 20)
    contents |= {path: text.encode() for path, (text, _) in sources.items()}
    for path, data in contents.items():
        place = root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    for name in (STATUS, EXTENDED):
        (root / name).touch()
    others = contents.get(_ARCHITECTURES, b"").decode(errors="replace").split()
    (root / "apt.conf").write_text(
        configuration(root, facts.architecture, others), encoding="utf-8"
    )
    return {"APT_CONFIG": str(root / "apt.conf")}


def configuration(root: Path, architecture: str, others: Iterable[str]) -> str:
    """The apt.conf of the private root; `others` are the image's foreign architectures."""
    names = dict.fromkeys([architecture, *(o for o in others if re.fullmatch(r"[a-z0-9-]+", o))])
    text = _CONFIGURATION.format(
        root=root,
        status=STATUS,
        architecture=architecture,
        architectures=" ".join(f'"{name}";' for name in names),
    )
    dumped = run(["apt-config", "dump"]).text.splitlines()
    return text + "".join(f"{line}\n" for line in dumped if _HOST_OPTIONS.fullmatch(line))


def own_sources(path: str, text: str, root: Path) -> tuple[str, set[str]]:
    """A sources file with its paths inside `root`, and the key files that it names.

    Left out: sources on local media, which are this machine's and not the image's, and options that do away
    with signatures.
    """
    one_line = not path.endswith(".sources")
    return _list_format(text, root) if one_line else _deb822(text, root)


def _list_format(text: str, root: Path) -> tuple[str, set[str]]:
    keys: set[str] = set()
    kept = []
    for line in text.splitlines():
        if re.match(rf"\s*deb(-src)?\s+(\[.*\]\s*)?{_LOCAL}", line):
            continue
        head, bracket, rest = line.partition("]")
        head = re.sub(rf"\b{_UNSIGNED}[+-]?=\S+", "", head) if bracket else head
        head = re.sub(r"(?<=signed-by=)\S+", lambda m: _keys(m[0], ",", root, keys), head)
        kept.append(_mirrors(head + bracket + rest, root))
    return "\n".join(kept) + "\n", keys


def _deb822(text: str, root: Path) -> tuple[str, set[str]]:
    keys: set[str] = set()
    paragraphs = []
    for paragraph in re.split(r"\n\s*\n", text):
        uris = re.search(r"^URIs:(.*(?:\n[ \t].*)*)", paragraph, re.MULTILINE | re.IGNORECASE)
        if uris and all(re.match(_LOCAL, uri) for uri in uris[1].split()):
            continue
        own = re.sub(rf"^{_UNSIGNED}:.*\n?", "", paragraph, flags=re.MULTILINE | re.IGNORECASE)
        own = re.sub(
            r"^(Signed-By:)(.*)$",
            lambda m: f"{m[1]} {_keys(m[2], ' ', root, keys)}",
            own,
            flags=re.MULTILINE | re.IGNORECASE,
        )
        paragraphs.append(_mirrors(own, root))
    return "\n\n".join(paragraphs) + "\n", keys


def _keys(value: str, separator: str, root: Path, keys: set[str]) -> str:
    """Paths of key files inside `root`; fingerprints as they are."""
    words = [word for word in re.split(r"[,\s]+", value) if word]
    keys.update(word for word in words if word.startswith("/"))
    return separator.join(f"{root}{word}" if word.startswith("/") else word for word in words)


def _mirrors(text: str, root: Path) -> str:
    """Lists of mirrors are the image's files too (apt-transport-mirror(1))."""
    return re.sub(r"\bmirror\+file:/+", f"mirror+file:{root}/", text)
