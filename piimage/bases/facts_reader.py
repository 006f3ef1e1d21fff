"""Read the Facts of an image in user space: nothing is mounted, nothing in it is run or written.

The image is untrusted. What decides (the table, os-release, the network stack) is an error when it
cannot be read; text that is merely odd, such as a broken line of passwd, is handed on as it stands.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from piimage.bases import apart, rpm_database
from piimage.bases.guest_text import Packages, dpkg_status, os_release
from piimage.bases.inventory import (
    LOCALE_ARCHIVE,
    LOCALES,
    MODULES,
    PROGRAMS,
    ZONEINFO,
    architecture,
    kernels,
    locales,
    timezones,
)
from piimage.bases.layout import (
    OS_RELEASE,
    find_firmware,
    find_root,
    firmware_mount,
    mount_lines,
    resolve_mounts,
)
from piimage.bases.network_stack import network_stack
from piimage.bases.units import VENDOR, read_units, unit_files
from piimage.disk.fat import list_tree, read_files
from piimage.disk.rootfs import open_tree
from piimage.disk.table import read_table
from piimage.distros.firmware_config import cmdline_name, prefix, whole
from piimage.distros.system import recognise
from piimage.errors import ImageError, UnsupportedError
from piimage.facts import Facts, FileFact
from piimage.progress import Progress, Quiet
from piimage.report import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from piimage.disk.tree import FileTree
    from piimage.facts import OsRelease, Partition, PartitionTable

#: Files up to this size are kept with their content.
MAX_CONTENT = 1 << 20
_MAX_NAMES, _MAX_TOTAL = 50_000, 128 << 20
#: Debian's own has 60 MB with all of its translations; more than this is not read.
_MAX_DATABASE = 256 << 20
#: Lines of passwd(5) that are looked at for homes.
_MAX_ACCOUNTS, _PASSWD_FIELDS = 5000, 7
_STATUS = "/var/lib/dpkg/status"
#: Kept with content.
_WITH_CONTENT = (("/etc", None), ("/usr/lib/netplan", 1), ("/usr/lib/os-release", 0))
#: Kept by kind, mode and owner: where components write, with as many levels as they look at.
_WITHOUT_CONTENT = (
    ("/", 1),
    ("/boot", 1),
    ("/home", 2),
    ("/opt", 1),
    ("/root", 2),
    ("/srv", 1),
    ("/usr/lib/piimage", 2),
    ("/usr/lib/raspberrypi-sys-mods", 1),
    ("/usr/local", 1),
    ("/usr/share/keyrings", 1),
    ("/var/lib/AccountsService", 2),
    ("/var/lib/NetworkManager", 1),
    ("/var/lib/cloud", 3),
    ("/var/lib/dbus", 1),
    ("/var/lib/systemd", 2),
    ("/var/mail", 1),
    ("/var/spool/cron", 2),
)
#: Looked at for other facts and not kept.
_LOOKED_AT = ((VENDOR, 2), (MODULES, 1), (LOCALES, 1), (ZONEINFO, 3))
_FIRMWARE_TEXT = re.compile(
    r"[^/]+\.(txt|toml|sh|ya?ml)|user-data|meta-data|network-config|userconf", re.IGNORECASE
)


def read_facts(image: Path, *, image_id: str, progress: Progress | None = None) -> Facts:
    """The facts of the raw image at `image`, whose sha256 is `image_id`.

    Raises `ImageError` for an image that is damaged and `UnsupportedError` for one that piimage
    cannot use or does not know; both say what was seen.
    """
    with (progress or Quiet()).step("reading the facts of the image"):
        table = read_table(image)
        root = find_root(image, table)
        firmware = find_firmware(image, table)
        with open_tree(image, root.start) as found:
            tree = _Tree(found)

        def contents(paths: Sequence[str]) -> Mapping[str, bytes]:
            return read_files(image, firmware.start, paths, limit=MAX_CONTENT)

        boot = _firmware_files(list_tree(image, firmware.start), contents)
        facts = _facts(image_id, table, root, firmware, tree, boot)
        beside = apart.places(facts.mounts, facts.firmware, table)
        if beside:
            files = apart.files(image, table, beside)
            own = {p: f for p, f in facts.files.items() if f"{p}/".startswith(f"{facts.firmware}/")}
            facts = replace(facts, files={**_visible(facts.files, beside), **files, **own})
        recognise(facts)
        return facts


def _facts(  # noqa: PLR0917 -- each is of a type of its own, but for the two partitions
    image_id: str,
    table: PartitionTable,
    root: Partition,
    firmware: Partition,
    tree: _Tree,
    boot: Mapping[str, FileFact],
) -> Facts:
    """Facts from what was read; `boot` are the files of the firmware's partition by their paths there."""
    units = read_units(tree.listing, tree.contents)
    lines = mount_lines(tree.text("/etc/fstab"), tree.listing, tree.contents)
    mounts = resolve_mounts(lines, table, root)
    place = firmware_mount(mounts, firmware, lines)
    return Facts(
        image_id=image_id,
        os=_os_release(tree),
        architecture=architecture(tree.contents, tree.packages.architectures),
        table=table,
        mounts=mounts,
        firmware=place,
        files=_visible(tree.files, [place]) | {place + path: fact for path, fact in boot.items()},
        units=units,
        packages=tree.packages.versions,
        network_stack=network_stack(units, tree.packages.versions, tree.files),
        rpi_issue=tree.text("/etc/rpi-issue") or None,
        kernels=kernels(tree.listing),
        locales=locales(tree.listing, tree.contents.get(LOCALE_ARCHIVE, b"")),
        timezones=timezones(tree.listing),
        cloud_init=tree.packages.versions.get("cloud-init"),
        made=tree.made,
    )


class _Tree:
    """What the root file system gives: everything is read here, so that it is opened once."""

    def __init__(self, tree: FileTree) -> None:
        kept, content = _list(tree, _WITHOUT_CONTENT), _list(tree, _WITH_CONTENT)
        self.listing = kept | content | _list(tree, _LOOKED_AT) | _parents(tree)
        if len(content) > _MAX_NAMES:
            raise ImageError(f"the image has {len(content)} files in /etc, which is not credible")
        regular = [path for path, fact in content.items() if fact.kind == "file"]
        self.contents = tree.read_files(regular, limit=MAX_CONTENT)
        if sum(map(len, self.contents.values())) > _MAX_TOTAL:
            raise ImageError(f"the files in the image's /etc exceed {_MAX_TOTAL >> 20} MiB")
        kept |= _keys(tree, _decode(self.contents.get("/etc/passwd", b"")))
        self.files = {
            path: replace(fact, content=self.contents.get(path) if fact.kind == "file" else None)
            for path, fact in (kept | _parents(tree) | content).items()
        }
        self.contents |= tree.read_files(unit_files(self.listing), limit=MAX_CONTENT)
        self.contents |= tree.read_files((*OS_RELEASE, *PROGRAMS), limit=MAX_CONTENT << 3)
        databases = (_STATUS, *rpm_database.PLACES)
        logs = (path + rpm_database.LOG for path in rpm_database.PLACES)
        found = tree.read_files((*databases, *logs, LOCALE_ARCHIVE), limit=_MAX_DATABASE)
        self.contents |= found
        self.packages = _packages(found)
        self.made = max(filter(None, map(tree.modified, (*databases, *OS_RELEASE))), default=None)

    def text(self, path: str) -> str:
        """Text of a file, or `""`."""
        return _decode(self.contents.get(path, b""))


def _packages(databases: Mapping[str, bytes]) -> Packages:
    """What dpkg or RPM has installed; nothing where neither has a database that can be read."""
    for path in rpm_database.PLACES:
        if path in databases and _STATUS not in databases:
            return rpm_database.installed(
                databases[path], databases.get(path + rpm_database.LOG, b"")
            )
    return dpkg_status(_decode(databases.get(_STATUS, b"")))


def _list(tree: FileTree, roots: tuple[tuple[str, int | None], ...]) -> dict[str, FileFact]:
    found: dict[str, FileFact] = {}
    for root, depth in roots:
        found |= tree.list_tree([root], depth)
    return found


def _parents(tree: FileTree) -> dict[str, FileFact]:
    """The directories above whatever is listed, so that no kept path hangs in the air."""
    above: set[str] = set()
    for root, _ in (*_WITH_CONTENT, *_WITHOUT_CONTENT):
        path = root
        while path != "/":
            path = posixpath.dirname(path)
            above.add(path)
    return tree.list_tree(sorted(above), 0)


def _keys(tree: FileTree, passwd: str) -> dict[str, FileFact]:
    """What lies in `.ssh` of every account's home, and the directories above."""
    rows = (line.split(":") for line in passwd.split("\n")[:_MAX_ACCOUNTS])
    homes = {row[5].rstrip("/") for row in rows if len(row) == _PASSWD_FIELDS}
    plain = [home for home in homes if posixpath.normpath(home or "/") == (home or "/")]
    found = tree.list_tree([f"{home}/.ssh" for home in plain if home[:1] in ("", "/")], 1)
    above: set[str] = set()
    for path in found:
        while (path := posixpath.dirname(path)) != "/":
            above.add(path)
    return found | tree.list_tree(sorted(above), 0)


def _os_release(tree: _Tree) -> OsRelease:
    for path in OS_RELEASE:
        found = os_release(tree.text(path))
        if found is not None:
            return found
    first = tree.text(OS_RELEASE[0]).partition("\n")[0]
    raise UnsupportedError(f"/etc/os-release names no `ID`; it begins with {shown(first)}")


def _visible(files: Mapping[str, FileFact], places: Iterable[str]) -> dict[str, FileFact]:
    """The files without what is hidden when something is mounted at `places`."""
    below = tuple(f"{place}/" for place in places)
    return {path: fact for path, fact in files.items() if not path.startswith(below)}


def _firmware_files(
    everything: Mapping[str, FileFact], read: Callable[[Sequence[str]], Mapping[str, bytes]]
) -> dict[str, FileFact]:
    """Names in the root of the firmware's partition and in its `os_prefix`, text files with their content.

    So is whatever config.txt includes, and the command line that it names. In small letters: a FAT tells no
    `CMDLINE.TXT` from `cmdline.txt`, neither do the firmware and Linux.
    """
    told: set[str] = set()

    def text(name: str) -> str:
        told.add(f"/{name}".casefold())
        return _decode(read([f"/{name}"]).get(f"/{name}", b""))

    config = whole(text)
    told.add(f"/{cmdline_name(config)}".casefold())
    folders = ("", ("/" + prefix(config).strip("/")).rstrip("/").casefold())
    listing = {
        path: fact
        for path, fact in everything.items()
        if path != "/"
        and (
            path.rpartition("/")[0].casefold() in folders
            or any(f"{name}/".startswith(f"{path.casefold()}/") for name in told)
        )
    }
    texts = [
        path
        for path, fact in listing.items()
        if fact.kind == "file" and (_is_text(path) or path.casefold() in told)
    ]
    contents = read(texts)
    return {
        path.lower(): replace(fact, content=contents.get(path)) for path, fact in listing.items()
    }


def _is_text(path: str) -> bool:
    return _FIRMWARE_TEXT.fullmatch(path.rpartition("/")[2]) is not None


def _decode(data: bytes) -> str:
    return data.decode(errors="surrogateescape")
