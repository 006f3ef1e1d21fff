"""Time zone, locale and keymap: checked against the base, set offline where they can be."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from piimage.components.contribution import Check, Contribution, Stamp
from piimage.components.textfile import real_path, rewritten, set_variable, with_newline
from piimage.delta import Absent, Delta, Symlink
from piimage.errors import UnsupportedError

if TYPE_CHECKING:
    from piimage.cluster import Cluster, Node, Role
    from piimage.components.contribution import Secrets
    from piimage.delta import Entry
    from piimage.facts import Facts

_DEBIAN_LOCALE, _LOCALE = _LOCALE_FILES = ("/etc/default/locale", "/etc/locale.conf")
#: From this version on Debian's systemd makes the first a link to the second, at each boot and whatever was there
#: (/usr/lib/tmpfiles.d/debian.conf).
_SYSTEMD_LINKS = 257
_KEYBOARD = "/etc/default/keyboard"
_VCONSOLE = "/etc/vconsole.conf"
#: console-setup loads this compiled copy and looks at /etc/default/keyboard only without it.
_KEYMAP_CACHE = "/etc/console-setup/cached_setup_keyboard.sh"
#: Built into glibc, in every image.
_BUILT_IN = frozenset({"c", "posix", "c.utf8"})


def image(cluster: Cluster, _role: Role, facts: Facts) -> Contribution:
    """Links and settings; raises `UnsupportedError` for what the base cannot give."""
    entries: dict[str, Entry] = _timezone(cluster.timezone, facts)
    entries |= _keymap(cluster.keymap, facts)
    deferred: tuple[str, ...] = ()
    if needs_generation(cluster.locale, facts):
        entries |= _generate(cluster.locale, facts)
        deferred = (f"the locale {cluster.locale} is generated at first boot by cloud-init",)
    else:
        for path in locale_files(facts):
            text = set_variable(facts.text(path), "LANG", cluster.locale)
            entries[path] = rewritten(facts, path, text)
    return Contribution(
        delta=Delta.of("localisation", entries),
        deferred=deferred,
        checks=(
            Check(
                name="time zone",
                argv=("readlink", "/etc/localtime"),
                expect=f"/{re.escape(cluster.timezone)}$",
            ),
        ),
    )


def stamp(cluster: Cluster, _node: Node, facts: Facts, _secrets: Secrets) -> Stamp:
    """The locale only when cloud-init must make it: else the variant says leave it alone."""
    if needs_generation(cluster.locale, facts):
        return Stamp(user_data={"locale": cluster.locale})
    return Stamp()


def _timezone(zone: str, facts: Facts) -> dict[str, Entry]:
    if facts.timezones and zone not in facts.timezones:
        raise UnsupportedError(
            f"the base has no time zone `{zone}`",
            hint="write a name of the tz database, such as `Europe/Rome`",
        )
    if not facts.timezones and zone not in ("UTC", "Etc/UTC"):
        raise UnsupportedError(
            f"the base has no time zones at all, so not `{zone}` either",
            hint="use `timezone: UTC` or a base with the package tzdata",
        )
    entries: dict[str, Entry] = {"/etc/localtime": Symlink(f"/usr/share/zoneinfo/{zone}")}
    if facts.has("/etc/timezone"):  # gone from Debian 13; where it stands it must agree
        entries["/etc/timezone"] = rewritten(facts, "/etc/timezone", f"{zone}\n")
    return entries


def locale_files(facts: Facts) -> tuple[str, ...]:
    """Where LANG is kept: Debian's /etc/default/locale (since 13 a link) or locale.conf(5), or for now in both."""
    leads = {path: real_path(facts, path) for path in _LOCALE_FILES if facts.has(path)}
    # a link to anything else is replaced and not followed
    found = {real if real in _LOCALE_FILES else path for path, real in leads.items()}
    major = re.match(r"\d+", facts.packages.get("systemd", ""))
    if not found or (major and int(major[0]) >= _SYSTEMD_LINKS):
        found.add(_LOCALE)
    return tuple(sorted(found))


def _folded(locale: str) -> str:
    name, _, codeset = locale.partition(".")
    return (f"{name}.{codeset.replace('-', '')}" if codeset else name).lower()


def needs_generation(locale: str, facts: Facts) -> bool:
    """Whether the base must make the locale first; raises `UnsupportedError` if it cannot."""
    present = _BUILT_IN | {_folded(name) for name in facts.locales}
    if _folded(locale) in present:
        return False
    if "locales" in facts.packages and facts.cloud_init is not None:
        return True
    raise UnsupportedError(
        f"the base has no locale `{locale}` and no package `locales` to make it",
        hint=f"it has {', '.join(sorted({'C.UTF-8', *facts.locales}))}",
    )


def _generate(locale: str, facts: Facts) -> dict[str, Entry]:
    """Name the locale in locale.gen(5); LANG waits, or cloud-init would see no work."""
    line = f"{locale} {locale.partition('.')[2] or 'ISO-8859-1'}"
    text = facts.text("/etc/locale.gen")
    commented = re.compile(rf"^#[ \t]*{re.escape(line)}[ \t]*$", re.MULTILINE | re.IGNORECASE)
    if re.search(rf"^{re.escape(line)}[ \t]*$", text, re.MULTILINE):
        return {}
    text, found = commented.subn(line, text, count=1)
    if not found:
        text = with_newline(text) + line + "\n"
    return {"/etc/locale.gen": rewritten(facts, "/etc/locale.gen", text)}


def _keymap(keymap: str, facts: Facts) -> dict[str, Entry]:
    """`layout` or `layout:variant`; Debian's /etc/vconsole.conf links to the same file."""
    layout, _, variant = keymap.partition(":")
    vconsole = facts.files.get(_VCONSOLE)
    if not facts.has(_KEYBOARD) and vconsole is not None and vconsole.kind == "file":
        text = set_variable(vconsole.text, "KEYMAP", "-".join(filter(None, (layout, variant))))
        return {_VCONSOLE: rewritten(facts, _VCONSOLE, text)}
    text = facts.text(_KEYBOARD) or 'XKBMODEL="pc105"\nXKBOPTIONS=""\nBACKSPACE="guess"\n'
    text = set_variable(set_variable(text, "XKBLAYOUT", layout), "XKBVARIANT", variant)
    if text == facts.text(_KEYBOARD):
        return {}  # the compiled copy may stay: a board needs seconds to make it
    entries: dict[str, Entry] = {_KEYBOARD: rewritten(facts, _KEYBOARD, text)}
    if facts.has(_KEYMAP_CACHE):
        entries[_KEYMAP_CACHE] = Absent()
    return entries
