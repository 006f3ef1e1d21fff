"""ssh keys that GitHub and Launchpad show for a name: fetched once, then kept in the cluster's state.

What was fetched is pinned: builds after that need no network and give the same bytes, whatever happens to
the account. Only type and key are taken from a line; its options and comment are a stranger's words.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from piimage.disk.atomic import write_bytes
from piimage.errors import ConfigError, StateError
from piimage.spec.fields import ssh_key_line
from piimage.web import read_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from piimage.cluster import Cluster
    from piimage.progress import Progress


@dataclass(frozen=True, slots=True)
class _Site:
    """Where keys are shown: `path` holds `{name}`; `variable` of the environment names another server."""

    title: str
    variable: str
    url: str
    path: str


_SITES = {
    "gh": _Site("GitHub", "PIIMAGE_GITHUB_URL", "https://github.com", "/{name}.keys"),
    "lp": _Site("Launchpad", "PIIMAGE_LAUNCHPAD_URL", "https://launchpad.net", "/~{name}/+sshkeys"),
}
_ONCE = "a build asks once, then works offline; the keys themselves may stand in `ssh_keys` too"


@dataclass(frozen=True, slots=True)
class Pin:
    """The key lines that were found for a name, and when (UTC, ISO 8601)."""

    keys: tuple[str, ...]
    fetched: str


def names(cluster: Cluster) -> tuple[str, ...]:
    """The `gh:NAME` and `lp:NAME` of all users, each once."""
    keys = (key for user in cluster.users for key in user.ssh_keys if key.kind in _SITES)
    return tuple(dict.fromkeys(f"{key.kind}:{key.value}" for key in keys))


def ensure(
    path: Path,
    wanted: Iterable[str],
    env: Mapping[str, str],
    progress: Progress,
    *,
    allowed: bool = True,
) -> dict[str, Pin]:
    """The pins in the file `path`, with those of `wanted` names that it lacked fetched and added.

    Raises what `fetch` and `read` raise, and `StateError` for lacking ones unless it is `allowed` to fetch;
    then it writes nothing.
    """
    pins = read(path)
    missing = [name for name in wanted if name not in pins]
    if missing and not allowed:
        names_ = ", ".join(f"`{name}`" for name in missing)
        raise StateError(
            f"`{path}` has no keys for {names_}, and `--require-state` forbids fetching them",
            hint="run `piimage build` without it once where there is a network, then keep the state",
        )
    if missing:
        pins |= fetch(missing, env, progress)
        write(path, pins)
    return pins


def fetch(wanted: Iterable[str], env: Mapping[str, str], progress: Progress) -> dict[str, Pin]:
    """Ask for the keys of each `gh:NAME` or `lp:NAME`.

    Raises `ConfigError` for a name that is nobody's or has no keys, `FetchError` when there is no answer.
    """
    found: dict[str, Pin] = {}
    for name in wanted:
        kind, _, user = name.partition(":")
        site = _SITES[kind]
        base = env.get(site.variable) or site.url
        with progress.step(f"fetching the ssh keys of {name}"):
            url = base.rstrip("/") + site.path.format(name=quote(user, safe=""))
            text = read_text(url, hint=_ONCE)
        if text is None:
            raise ConfigError(f"{site.title} knows no `{user}`", hint=f"see `{name}` in `ssh_keys`")
        keys = tuple(dict.fromkeys(f"{key} {name}" for key in _keys(text)))
        if not keys:
            raise ConfigError(
                f"{site.title} shows no ssh keys for `{user}`",
                hint=f"add one there, or take `{name}` out of `ssh_keys`",
            )
        found[name] = Pin(keys, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
    return found


def _keys(text: str) -> list[str]:
    """Type and key of each line that begins with a public key; anything else is passed over."""
    found = []
    for line in text.splitlines():
        try:
            found.append(ssh_key_line(" ".join(line.split()[:2])))
        except ValueError:
            continue
    return found


def read(path: Path) -> dict[str, Pin]:
    """The pins in the file `path`, none where it is absent; raises `StateError` for a damaged one."""
    try:
        data = json.loads(path.read_bytes())
        return {
            str(name): Pin(tuple(ssh_key_line(key) for key in pin["keys"]), str(pin["fetched"]))
            for name, pin in data.items()
        }
    except FileNotFoundError:
        return {}
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise StateError(f"`{path}` cannot be read: {reason}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StateError(
            f"`{path}` is damaged", hint="bring it back from a backup, or remove it and fetch anew"
        ) from error


def write(path: Path, pins: Mapping[str, Pin]) -> None:
    """Write the pins whole or not at all."""
    data = {name: {"keys": pin.keys, "fetched": pin.fetched} for name, pin in pins.items()}
    write_bytes(path, json.dumps(data, indent=1, sort_keys=True).encode() + b"\n", mode=0o600)
