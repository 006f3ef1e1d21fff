"""The one owner of /etc/fstab: every line parsed and checked, since a bad one stops a boot."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from piimage.components.textfile import rewritten, with_newline
from piimage.errors import ImageError, PiimageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from piimage.components.contribution import Contribution, MountLine
    from piimage.delta import Entry
    from piimage.facts import Facts

PATH = "/etc/fstab"
#: fstab(5): what separates fields or starts a comment is written in octal.
_ESCAPES = {" ": "\\040", "\t": "\\011", "\n": "\\012", "\\": "\\134", "#": "\\043"}
_MIN_FIELDS, _MAX_FIELDS = 3, 6
#: What names a disk or a part of one.
_DISK = re.compile(r"(?:UUID|LABEL|PARTUUID|PARTLABEL|ID)=|/dev/(?:disk/|sd|nvme|mmcblk|mapper/)")
#: With one of these no boot waits for a disk to come, nor ends in the emergency shell without it (systemd.mount(5)).
PATIENT = ("nofail", "noauto", "x-systemd.automount")
_WITHOUT = "nofail,x-systemd.device-timeout=10s"


def escape(field: str) -> str:
    """A field as fstab(5) wants it."""
    return "".join(_ESCAPES.get(char, char) for char in field)


def line(mount: MountLine) -> str:
    """One line, fields aligned by nothing but single tabs, newline at the end."""
    fields = (mount.spec, mount.mountpoint, mount.type, ",".join(mount.options) or "defaults")
    return "\t".join([*map(escape, fields), "0", str(mount.passno)]) + "\n"


def check(text: str) -> None:
    """Raise `ImageError` for the first line that mount(8) would refuse or misread."""
    seen: set[str] = set()
    for number, raw in enumerate(text.split("\n"), start=1):
        fields = _fields(raw)
        if not fields or fields[0].startswith("#"):
            continue
        problem = _problem(fields, seen)
        if problem:
            raise ImageError(f"{PATH} line {number}: {problem}")
        if fields[1] not in ("none", "swap"):
            seen.add(fields[1])


def _fields(raw: str) -> list[str]:
    """Fields of a line: only blanks and tabs separate them, not what Unicode calls white."""
    return re.findall(r"[^ \t\n]+", raw)


def _problem(fields: list[str], seen: set[str]) -> str | None:
    if not _MIN_FIELDS <= len(fields) <= _MAX_FIELDS:
        return f"{len(fields)} fields where {_MIN_FIELDS} to {_MAX_FIELDS} are allowed"
    if not fields[1].startswith("/") and fields[1] not in ("none", "swap"):
        return f"`{fields[1]}` is no absolute mount point"
    if fields[1] in seen:
        return f"`{fields[1]}` is mounted twice"
    if not all(re.fullmatch(r"\d", field) for field in fields[4:]):
        return "the last two fields must be single digits"
    return None


def render(text: str, mounts: Sequence[MountLine]) -> str:
    """`text` with `mounts` in place of lines with the same mount point, else at its end."""
    wanted = {mount.mountpoint: mount for mount in mounts}
    if len(wanted) != len(set(mounts)):
        raise PiimageError("two components want different mounts at one mount point")
    lines: list[str] = []
    for raw in re.findall(r".*\n", with_newline(text)):
        fields = _fields(raw)
        point = _unescape(fields[1]) if len(fields) > 1 and fields[0][0] != "#" else None
        lines.append(line(wanted.pop(point)) if point in wanted else raw)
    result = "".join([*lines, *(line(mount) for mount in wanted.values())])
    check(result)
    return result


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def entries(parts: Sequence[Contribution], facts: Facts) -> dict[str, Entry]:
    """/etc/fstab, where it changes: by mounts, or for its line ends; raises `ImageError` for one the base broke."""
    mounts = [mount for part in parts for mount in part.mounts]
    # Windows' line ends would be part of the last field, `defaults` for one: getmntent(3) keeps them.
    text = facts.text(PATH).replace("\r\n", "\n")
    check(text)
    text = bootable_without(text, facts)
    wanted = render(text, mounts) if mounts else text
    return {} if wanted == facts.text(PATH) else {PATH: rewritten(facts, PATH, wanted)}


def bootable_without(text: str, facts: Facts) -> str:
    """`text` by which a node also starts without the disks that are not on its card: those of a card that was in use.

    systemd waits 90 s for such a disk, and then asks for root's password on the console.
    """
    own = {place: facts.mounts.get(place) for place in ("/", facts.firmware)}
    lines: list[str] = []
    for raw in re.findall(r"[^\n]*\n|[^\n]+", text):
        fields = _fields(raw)
        if len(fields) >= _MIN_FIELDS and _DISK.match(fields[0]):
            place = _unescape(fields[1])
            options = fields[3].split(",") if len(fields) > _MIN_FIELDS else ["defaults"]
            number = facts.mounts.get(place)
            absent = number is None or (place not in own and number in own.values())
            if absent and not set(options) & set(PATIENT):
                words = ",".join([*options, _WITHOUT])
                lines.append("\t".join([*fields[:3], words, *(fields[4:] or ["0", "0"])]) + "\n")
                continue
        lines.append(raw)
    return "".join(lines)
