"""Annotated types for the models: a check of `piimage.spec.fields` and its JSON Schema."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import PlainValidator, WithJsonSchema
from pydantic_core import PydanticKnownError

from piimage.delta import check_path
from piimage.report import shown
from piimage.spec import fields
from piimage.spec.fields import pattern, wrong

if TYPE_CHECKING:
    from collections.abc import Callable


def _text(check: Callable[[str], Any]) -> PlainValidator:
    """The check, for text only."""

    def plain(value: object) -> Any:  # noqa: ANN401 -- what the check returns
        if not isinstance(value, str):
            raise PydanticKnownError("string_type")
        return check(value)

    return PlainValidator(plain)


def _schema(regex: str | None = None, **more: Any) -> WithJsonSchema:  # noqa: ANN401 -- JSON Schema keywords
    return WithJsonSchema(
        {"type": "string", **({"pattern": f"^({regex})$"} if regex else {}), **more}
    )


_NAME = r"[a-z0-9][a-z0-9._-]{0,63}"
_PROFILE = rf"((board|role)/)?{_NAME}"
_PACKAGE = r"[a-z0-9][a-z0-9+._-]{0,127}"
_KERNEL_WORD = r"[!-~]+"
_LINE = r"[ -~]+"
_LOCALE = r"(C|POSIX|[a-z]{2,3}(_[A-Z]{2})?)(\.[A-Za-z0-9-]+)?(@[a-z]+)?"
_KEYMAP = r"[a-z][a-z0-9_-]{1,31}"
_ZONE = r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}"
_PATH = r"(/[A-Za-z0-9_+@-][A-Za-z0-9._+@-]*)+"
_MODE = r"0?[0-7]{3}|[0-7]{4}"
_UNIT = r"[A-Za-z0-9:_.@\\-]+\.(service|socket|target|timer|mount|automount|path|swap|slice)"
_NUMBER = re.compile(r"\{n(?::0?([1-9])d?)?\}")
_MAX_GECOS = 256


def _version(value: object) -> int:
    """1 and nothing that only equals it, such as `1.0` or `true`."""
    if type(value) is not int or value != 1:
        if value == "1":
            raise wrong(
                "version", "`version` must be the number 1, but this is text", "remove the quotes"
            )
        got = shown(value) if isinstance(value, (int, float, str)) else "this"
        raise wrong("version", f"`version` must be 1, not {got}", "this piimage reads version 1")
    return value


def _name_pattern(value: str) -> str:
    """A host name in which `{n}` or `{n:02}` stands for the node's number."""
    sample = _NUMBER.sub("0", value)
    if "{" in sample or "}" in sample:
        hint = "write `{n}`, or `{n:02}` for two digits, as in `node{n}`"
        raise wrong("name-pattern", f"{shown(value)} has braces that are not `{{n}}`", hint)
    if sample.isdigit():
        hint = f"did you mean {shown('node' + value)}?"
        raise wrong("name-pattern", f"{shown(value)} gives names that are all digits", hint)
    fields.hostname(sample)
    return value


def number_name(text: str, number: int) -> str:
    """`node{n}` and 3 make `node3`; `{n:02}` makes at least two digits."""
    return _NUMBER.sub(lambda found: str(number).zfill(int(found[1] or 1)), text)


def _gecos(value: str) -> str:
    if len(value) > _MAX_GECOS or re.search(r"[:\n\t]", value):
        message = "a full name has up to 256 characters, without `:`, tab and newline"
        raise wrong("gecos", message, "/etc/passwd parts its fields by `:`")
    return value


def _mode(value: str) -> str:
    if not re.fullmatch(_MODE, value):
        raise wrong("mode", f"{shown(value)} is not an octal mode", 'for example `"0755"`')
    return value


def _path(what: str) -> Callable[[str], str]:
    check = pattern(what, _PATH, "absolute, without spaces, `..` or a final `/`", _tidy)

    def path(value: str) -> str:
        if not value.startswith("/"):
            hint = f"did you mean {shown('/' + value)}?" if value and value[0].isalnum() else None
            raise wrong("path", f"{shown(value)} is not an absolute path", hint)
        return check(value)

    return path


def _guest_path(value: str) -> str:
    try:
        return check_path(value)
    except ValueError as error:
        raise wrong("path", str(error), "absolute, without `..` or a final `/`") from None


def _tidy(value: str) -> str:
    return re.sub(r"/+", "/", value).rstrip("/")


def _locale(value: str) -> str:
    if not re.fullmatch(_LOCALE, value):
        hint = "for example `C.UTF-8` or `it_IT.UTF-8`"
        raise wrong("locale", f"{shown(value)} is not a locale name", hint)
    if not re.fullmatch(r".*\.(?i:utf-?8)(@.*)?", value):
        name = value.split(".", maxsplit=1)[0].replace("POSIX", "C")
        raise wrong(
            "locale", f"{shown(value)} is not a UTF-8 locale", f"did you mean `{name}.UTF-8`?"
        )
    return value


_name = pattern("name", _NAME, "lower-case letters, digits, `.`, `_` and `-`", str.lower)
_unit = pattern("unit name", _UNIT, "a name with its type, such as `chrony.service`")
_profile = pattern("profile name", _PROFILE, "`NAME`, `role/NAME` or `board/NAME`", str.lower)
_package = pattern(
    "package name", _PACKAGE, "lower-case letters, digits, `+`, `.`, `_`, `-`", str.lower
)
_token = pattern(
    "kernel token", _KERNEL_WORD, "printable ASCII without spaces; one list entry each"
)
_line = pattern("config.txt line", _LINE, "one line of printable ASCII")
_keymap = pattern("keymap", _KEYMAP, "a keyboard layout such as `us`, `it`, `de`", str.lower)
_zone = pattern("time zone", _ZONE, "a name such as `Europe/Rome` or `Etc/UTC`")

Version = Annotated[int, PlainValidator(_version), WithJsonSchema({"const": 1})]
HostName = Annotated[str, _text(fields.hostname), _schema(fields.LABEL)]
NamePattern = Annotated[str, _text(_name_pattern), _schema()]
UserName = Annotated[str, _text(fields.username), _schema(fields.USERNAME)]
Mac = Annotated[str, _text(fields.mac), _schema("([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}")]
Address = Annotated[IPv4Address, _text(fields.address), _schema(format="ipv4")]
Subnet = Annotated[IPv4Network, _text(fields.subnet), _schema(r"[0-9.]+/[0-9]{1,2}")]
Ssid = Annotated[str, _text(fields.ssid), _schema(minLength=1, maxLength=fields.MAX_SSID)]
Country = Annotated[str, _text(fields.country), _schema("[A-Z]{2}")]
Domain = Annotated[str, _text(fields.domain), _schema(rf"{fields.LABEL}(\.{fields.LABEL})*")]
Server = Annotated[str, _text(fields.server), _schema()]
SafeName = Annotated[str, _text(_name), _schema(_NAME)]
ProfileName = Annotated[str, _text(_profile), _schema(_PROFILE)]
PackageName = Annotated[str, _text(_package), _schema(_PACKAGE)]
CmdlineToken = Annotated[str, _text(_token), _schema(_KERNEL_WORD)]
ConfigLine = Annotated[str, _text(_line), _schema(_LINE)]
Gecos = Annotated[str, _text(_gecos), _schema(maxLength=_MAX_GECOS)]
HomePath = Annotated[str, _text(_path("home directory")), _schema(_PATH)]
ShellPath = Annotated[str, _text(_path("shell")), _schema(_PATH)]
SharePath = Annotated[str, _text(_path("share path")), _schema(_PATH)]
GuestPath = Annotated[str, _text(_guest_path), _schema()]
UnitName = Annotated[str, _text(_unit), _schema(_UNIT)]
Mode = Annotated[str, _text(_mode), _schema(_MODE)]
Locale = Annotated[str, _text(_locale), _schema(_LOCALE)]
Keymap = Annotated[str, _text(_keymap), _schema(_KEYMAP)]
TimezoneName = Annotated[str, _text(_zone), _schema(_ZONE)]
