"""What `piimage init` asks, which defaults it proposes, and which answers it takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from piimage.cli.fields import checked
from piimage.errors import ConfigError
from piimage.init import starter, surroundings
from piimage.spec import fields, references
from piimage.spec.checks.accounts import RESERVED
from piimage.spec.model import MAX_NODES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from ipaddress import IPv4Network

    from piimage.cli.questions import Questions

NONE = "none"
_VARIABLE = "PI_WIFI_PSK"
NODES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What options said already; None is asked for."""

    name: str | None
    nodes: int | None
    user: str | None
    ssh_key: str | None
    subnet: str | None
    wifi: str | None
    country: str | None
    psk: str | None


@dataclass(frozen=True, slots=True)
class Interview:
    """The questions about the cluster.yaml that will be at `path`, in the environment `env`."""

    asks: Questions
    path: Path
    env: Mapping[str, str]

    def answers(self, given: Given, *, base: str, board: str | None, zone: str) -> starter.Answers:
        """Every answer, checked; raises `ConfigError` for an option that is wrong."""
        ask = self.asks.answer
        name = ask("name of the cluster", "--name", given.name, self._name(), hostname)
        count = None if given.nodes is None else str(given.nodes)
        nodes = ask("how many boards", "--nodes", count, str(NODES), node_count)
        user = ask("first user", "--user", given.user, surroundings.user_name(self.env), username)
        keys = ask(
            "ssh key that may log in (a .pub file, gh:NAME or none)",
            "--ssh-key",
            given.ssh_key,
            self._key(),
            self._ssh_keys,
        )
        subnet = self._subnet(given.subnet)
        return starter.Answers(
            name=name,
            nodes=nodes,
            user=user,
            subnet=subnet,
            ssh_keys=keys,
            base=base,
            board=board,
            timezone=zone,
            wifi=self._wifi(given, surroundings.country(zone) or ""),
        )

    def _name(self) -> str:
        """The directory's name, if a cluster can have it."""
        name = self.path.absolute().parent.name.lower()
        try:
            return hostname(name)
        except ConfigError:
            return "lab"

    def _home(self) -> Path | None:
        return Path(self.env["HOME"]) if self.env.get("HOME") else None

    def _key(self) -> str:
        """The user's best key, as a path that holds on another machine too."""
        home = self._home()
        found = surroundings.ssh_keys(home) if home else ()
        return f"~/{found[0].relative_to(home)}" if home and found else NONE

    def _ssh_keys(self, text: str) -> tuple[str, ...]:
        """A key as cluster.yaml refers to it."""
        if text in ("", NONE):
            return ()
        if text.startswith(("gh:", "lp:")):
            checked(references.ssh_key)(text)
            return (text,)
        home = self._home()
        path = Path(text.removeprefix("file:"))
        if home and path.parts[:1] == ("~",):
            path = home.joinpath(*path.parts[1:])
        path = path.absolute()
        checked(_key_file)(path)
        if home and path.is_relative_to(home):
            return (f"file:~/{path.relative_to(home)}",)
        return (f"file:{path}",)

    def _subnet(self, given: str | None) -> IPv4Network:
        taken = surroundings.networks()
        free = surroundings.free_subnet(taken)
        subnet = self.asks.answer(
            "subnet of the wire between the boards",
            "--subnet",
            given,
            str(free or ""),
            checked(fields.subnet),
        )
        hit = surroundings.collision(subnet, taken)
        if hit is not None:
            self.asks.say(
                f"warning: this machine has an address in, or a route to, {hit}: unless that is the cluster's own wire,"
                f" nodes in {subnet} are out of its reach"
            )
        return subnet

    def _wifi(self, given: Given, here: str) -> starter.AccessPoint | None:
        ssid = self.asks.answer(
            "name of the Wi-Fi (SSID; empty for none)", "--wifi", given.wifi, "", _ssid
        )
        if not ssid:
            for option, value in (("--country", given.country), ("--psk", given.psk)):
                if value is not None:
                    raise ConfigError(
                        f"{option} says something of a Wi-Fi that has no name",
                        hint="add `--wifi SSID`",
                    )
            return None
        country = self.asks.answer(
            "country of the Wi-Fi", "--country", given.country, here, checked(fields.country)
        )
        psk, secret = self._psk(given.psk, ssid)
        return starter.AccessPoint(ssid=ssid, country=country, psk=psk, secret=secret)

    def _psk(self, given: str | None, ssid: str) -> tuple[str, str | None]:
        """A reference, and what shall be in the file that it names: the hash of a passphrase that was typed."""
        file = starter.secret_file(self.path)
        if given is None and self.asks.asking and not file.exists():
            typed = self.asks.hidden(
                f"passphrase of `{ssid}` (empty: it will be in the variable {_VARIABLE})",
                _passphrase,
            )
            if typed:
                return f"file:{file.name}", starter.psk(ssid, typed)
        default = f"file:{file.name}" if file.exists() else f"env:{_VARIABLE}"
        return self.asks.answer("Wi-Fi key", "--psk", given or default, "", _psk_reference), None


hostname: Callable[[str], str] = checked(fields.hostname)


def node_count(text: str) -> int:
    """A number of boards; raises `ConfigError`."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_NODES):
        raise ConfigError(f"a cluster has 1 to {MAX_NODES} boards, not `{text}`")
    return int(text)


def username(text: str) -> str:
    """A name for the first user; raises `ConfigError`."""
    name: str = checked(fields.username)(text)
    if name in RESERVED:
        raise ConfigError(f"`{name}` is a system account's name", hint="choose another name")
    return name


def _key_file(path: Path) -> None:
    """Raises what `ssh_key_line` raises for the file's lines, or `ConfigError` if it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(
            f"`{path}` cannot be read: {(error.strerror or str(error)).lower()}",
            hint="`ssh-keygen -t ed25519` makes a key; the file that ends in `.pub` is wanted",
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"`{path}` is not text", hint="the file that ends in `.pub`") from None
    for line in [line for line in lines if line.strip() and not line.startswith("#")] or [""]:
        fields.ssh_key_line(line)


def _ssid(text: str) -> str:
    return str(checked(fields.ssid)(text)) if text else ""


def _passphrase(text: str) -> str:
    problem = references.passphrase_problem(text) if text else None
    if problem:
        raise ConfigError(problem)
    return text


def _psk_reference(text: str) -> str:
    """A reference; a passphrase itself would be seen by everybody who lists processes."""
    if checked(references.psk)(text).kind == "clear":
        raise ConfigError(
            "a passphrase on a command line is seen by others",
            hint="write `env:NAME`, `file:PATH` or the 64 hex digits that `wpa_passphrase` prints",
        )
    return text
