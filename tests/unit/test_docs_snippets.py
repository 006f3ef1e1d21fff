"""Every command line and every piece of YAML in the documents is one that piimage takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_docs import COMMANDS, PAGES, ROOT, _name
from typer.main import get_command

from piimage import resolve
from piimage.bases import catalog
from piimage.cli.main import app
from piimage.distros import packages
from piimage.errors import ConfigError
from piimage.report import render_text

_FENCE = re.compile(r"^( *)```(.*?)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^|\n\n|\n)((?: {4}.*\n)+)")
_INLINE = re.compile(r"(?<!`)`(?:\$ )?((?:sudo )?piimage [^`]+)`(?!`)")
#: How sudo is told which piimage: that of the virtual environment.
_FOUND = '"$(which piimage)"'
#: What goes before a program's name, and what separates commands.
_BEFORE = re.compile(r"^(?:\$ )?(?:sudo )?(?:[A-Z_]+=\S+ )*(?:\S*/)?(?=piimage )")
_BETWEEN = re.compile(r"&&|\|\||;|\||>>?|<| # | {2,}")
#: A cluster.yaml that a part of one in the documents fits into.
_FRAME = {
    "version": 1,
    "name": "lab",
    "users": [{"name": "ada", "uid": 1000}, {"name": "ops", "uid": 1001}],
    "network": {"wired": {"subnet": "192.168.50.0/24", "first": "192.168.50.10"}},
    "nodes": {"count": 4},
}
CI = sorted((ROOT / "docs/how-to/ci").glob("*.yml"))


#: Options of the program as such.
WHOLE = {option for p in get_command(app).params for option in p.opts} | {"--help"}


def commands(text: str) -> list[str]:
    """Command lines of piimage in lines of shell."""
    found = []
    for line in text.splitlines():
        # What a command's output is put into is a line of its own.
        plain = line.strip().replace(_FOUND, "piimage")
        for piece in _BETWEEN.split(plain.replace("$(", ";").replace(")", ";")):
            words = _BEFORE.sub("", piece.strip(), count=1)
            if words.startswith("piimage "):
                found.append(words)
    return found


def blocks(page: Path) -> str:
    """What a page shows as code, fenced or indented."""
    text = page.read_text(encoding="utf-8")
    fenced = "".join(
        block for _, kind, block in _FENCE.findall(text) if not kind.startswith("yaml")
    )
    return fenced + "".join(_INDENTED.findall(_FENCE.sub("", text)))


def parsed(line: str, *, mention: bool = False) -> None:
    """Raises unless the line is a command. A `mention` may leave out arguments and the last option's value."""
    words = shlex.split(line.replace("...", ""), comments=True)[1:]
    name = next((c for n in (2, 1) if (c := " ".join(words[:n])) in COMMANDS), None)
    if name is None:
        assert mention or words[0] in WHOLE, f"no command: {line}"
        assert words[0] in WHOLE | {c.split()[0] for c in COMMANDS}, f"no command: {line}"
        return
    rest = words[len(name.split()) :]
    try:
        COMMANDS[name].make_context(name, rest, resilient_parsing=mention and not rest)
    except Exception as error:
        if not (mention and re.search("requires an argument|Missing argument", str(error))):
            raise


def test_commands_are_found_where_they_stand():
    text = (
        "$ piimage validate\n    sudo piimage flash /dev/sdX   writes it\n"
        "    A=b .venv/bin/piimage plan | less\nx=$(piimage matrix)\n"
        '    sudo "$(which piimage)" flash --all\n'
    )

    assert commands(text) == [
        "piimage validate",
        "piimage flash /dev/sdX",
        "piimage plan",
        "piimage matrix",
        "piimage flash --all",
    ]


@pytest.mark.parametrize(
    "line", ["piimage build --nod 3", "piimage flash --blocks x", "piimage card", "piimage nothing"]
)
def test_a_command_that_is_none_is_seen(line):
    with pytest.raises(Exception, match=r"(?i)no such option|missing|no command"):
        parsed(line)


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "cli.md"], ids=_name)
def test_every_command_line_is_one_that_piimage_takes(page):
    for line in commands(blocks(page)):
        parsed(line)
    for line in _INLINE.findall(page.read_text(encoding="utf-8").replace(_FOUND, "piimage")):
        parsed(line.removeprefix("sudo ").replace("\n", " "), mention=True)


def snippets() -> list[tuple[str, str, str]]:
    """`(place, what the file is called, text)` of every piece of YAML."""
    return [
        (f"{_name(page)}:{number}", kind.partition(" ")[2], text)
        for page in PAGES
        for number, (_, kind, text) in enumerate(_FENCE.findall(page.read_text(encoding="utf-8")))
        if kind.split()[:1] == ["yaml"]
    ]


@pytest.mark.parametrize(
    ("place", "name", "text"), snippets(), ids=lambda value: value.split("\n")[0]
)
def test_every_piece_of_yaml_is_valid_where_it_belongs(place, name, text, tmp_path):
    """The fence says which file it is, or of which it is a part."""
    path, _, part = name.partition(" ")
    assert part in ("", "part"), f"{place}: `yaml FILE` or `yaml FILE part`, not {name!r}"
    whole = {**_FRAME, **yaml.safe_load(text)} if part else None
    target = tmp_path / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(yaml.safe_dump(whole) if part else text, encoding="utf-8")
    check(Path(path), tmp_path)


def check(path: Path, home: Path) -> None:
    """Have piimage read the file `path` of the directory `home`."""
    if path.name == "cluster.yaml":
        whole = yaml.safe_load((home / path).read_text())
        roles = (role or {} for role in whole.get("roles", {}).values())
        for overlay in (name for part in (whole, *roles) for name in part.get("overlays", ())):
            (home / "overlays" / overlay).mkdir(parents=True)
            (home / "overlays" / overlay / "overlay.yaml").write_text("description: of the test\n")
        loaded(home / path)
        return
    kind = path.parts[:2]
    if kind == ("profiles", "packages"):
        assert packages._table(path.stem, home)
    elif kind in (("profiles", "images"), ("profiles", "distro")):
        assert set(catalog.entries(home)) - set(catalog.entries())
    else:
        if kind[0] == "overlays":  # what it speaks of is there
            for name, said in yaml.safe_load((home / path).read_text())["files"].items():
                ending = ".j2" if said.get("per_node") else ""
                place = home / path.parent / f"rootfs{name}{ending}"
                place.parent.mkdir(parents=True, exist_ok=True)
                place.touch()
        parts: dict[str, dict[str, Any]] = {
            "overlays": {"overlays": [path.parts[1]]},
            "profiles": {
                "roles": {"head": {}, path.stem: {}},
                "nodes": [{"name": "a", "role": "head"}, {"name": "b", "role": path.stem}],
            },
        }
        more = parts[path.parts[0]]
        if kind == ("profiles", "board"):
            more = {"nodes": [{"name": "a", "role": "head", "board": path.stem}]}
        (home / "cluster.yaml").write_text(yaml.safe_dump({**_FRAME, **more}))
        loaded(home / "cluster.yaml")


def loaded(path: Path) -> None:
    """Have it read as a cluster.yaml; mistakes are told in full."""
    try:
        resolve.load(path, env={}, check_secrets=False)
    except ConfigError as error:
        pytest.fail(render_text(error.diagnostics, colour=False))
