"""The one owner of unit states: the links that systemctl would make.

A preset file says the same of every unit: when the machine id is `uninitialized`, systemd applies
presets at first boot, and Debian's enable whatever they do not name (ssh.socket, for one, which
ends ssh.service).
"""

from __future__ import annotations

import configparser
from typing import TYPE_CHECKING

from piimage.delta import Absent, File, Symlink
from piimage.errors import PiimageError, UnsupportedError
from piimage.facts import Unit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from piimage.components.contribution import Contribution
    from piimage.delta import Delta, Entry
    from piimage.facts import Facts

PRESET = "/etc/systemd/system-preset/10-piimage.preset"
_ETC = "/etc/systemd/system"
_UNIT_DIRS = (_ETC, "/usr/lib/systemd/system")
_SUFFIXES = (".service", ".socket", ".target", ".timer", ".mount", ".automount", ".path")


def entries(parts: Sequence[Contribution], delta: Delta, facts: Facts) -> dict[str, Entry]:
    """Links and preset for what `parts` ask; raises for opposite wishes and unknown units."""
    wanted = wishes(parts)
    enable, disable, mask = (
        [name for name, wish in wanted.items() if wish == which]
        for which in ("enable", "disable", "mask")
    )
    known = {**facts.units, **own_units(delta)}
    found: dict[str, Entry] = {}
    for name in (*disable, *mask):
        found |= _unlink(name, facts)
    for name in enable:
        found |= _link(name, known)
    for name in mask:
        found[f"{_ETC}/{name}"] = Symlink("/dev/null")
    on = {name for name, unit in facts.units.items() if unit.enabled} | set(enable)
    on |= {path.rpartition("/")[2] for path in found if ".wants/" in path} & set(known)  # `Also=`
    on -= {*disable, *mask}
    on -= {
        alias for n in (*disable, *mask) if n in facts.units for alias in facts.units[n].alias
    } - set(enable)
    found[PRESET] = File(preset_text(known, on).encode())
    return found


def wishes(parts: Sequence[Contribution]) -> dict[str, str]:
    """Unit -> `enable`, `disable` or `mask`, by name; raises `PiimageError` for opposite wishes."""
    enable = _unique(name for part in parts for name in part.enable)
    mask = _unique(name for part in parts for name in part.mask)
    disable = [n for n in _unique(n for part in parts for n in part.disable) if n not in mask]
    for name in enable:
        if name in disable or name in mask:
            raise PiimageError(f"unit `{name}` is to be enabled and disabled")
    found = dict.fromkeys(enable, "enable") | dict.fromkeys(disable, "disable")
    return dict(sorted((found | dict.fromkeys(mask, "mask")).items()))


def preset_text(known: Mapping[str, Unit], on: set[str]) -> str:
    """systemd.preset(5) that freezes the states of all units that can be enabled.

    Templates without a wanted instance are left out: a preset for them would speak of instances.
    """
    lines = {name: f"enable {name}\n" for name in on}
    for name, unit in known.items():
        installable = unit.wanted_by or unit.required_by or unit.alias or unit.also
        if installable and name not in on and "@." not in name:
            lines[name] = f"disable {name}\n"
    return "".join(lines[name] for name in sorted(lines))


def own_units(delta: Delta) -> dict[str, Unit]:
    """Units that the delta itself ships, with what their [Install] sections ask for."""
    found: dict[str, Unit] = {}
    for path, entry in delta:
        folder, _, name = path.rpartition("/")
        if isinstance(entry, File) and folder in _UNIT_DIRS and name.endswith(_SUFFIXES):
            found[name] = _parse(path, entry.content.decode())
    return found


def _parse(path: str, text: str) -> Unit:
    """The [Install] section; other sections repeat keys, which is no matter here."""
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.read_string(text)

    def words(key: str) -> tuple[str, ...]:
        return tuple(parser.get("Install", key, fallback="").split())

    return Unit(
        path=path,
        wanted_by=words("WantedBy"),
        required_by=words("RequiredBy"),
        alias=words("Alias"),
        also=words("Also"),
    )


def _unique(names: Iterable[str]) -> list[str]:
    return sorted(set(names))


def _link(
    name: str, known: Mapping[str, Unit], seen: frozenset[str] = frozenset()
) -> dict[str, Entry]:
    unit = known.get(name) or known.get(_template(name))
    if unit is None:
        raise UnsupportedError(f"the base has no unit `{name}`")
    target = Symlink(unit.path)
    links: dict[str, Entry] = {f"{_ETC}/{who}.wants/{name}": target for who in unit.wanted_by}
    links |= {f"{_ETC}/{who}.requires/{name}": target for who in unit.required_by}
    links |= {f"{_ETC}/{alias}": target for alias in unit.alias}
    for other in unit.also:
        if other not in seen and other in known:
            links |= _link(other, known, seen | {name})
    return links


def _template(name: str) -> str:
    """`getty@tty1.service` is an instance of `getty@.service`."""
    prefix, at, rest = name.partition("@")
    return f"{prefix}@.{rest.rpartition('.')[2]}" if at else name


def _unlink(name: str, facts: Facts) -> dict[str, Entry]:
    """Every link of /etc that enables the unit, under its own name or an alias."""
    aliases = facts.units[name].alias if name in facts.units else ()
    links: dict[str, Entry] = {}
    for path, fact in facts.files.items():
        if fact.kind != "link" or not path.startswith(_ETC + "/"):
            continue
        folder, _, base = path.rpartition("/")
        wanted = folder.endswith((".wants", ".requires")) and base in (name, *aliases)
        if wanted or (folder == _ETC and base in aliases):
            links[path] = Absent()
    return links
