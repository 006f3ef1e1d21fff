"""The documents say what is true: examples validate, commands exist, links lead somewhere, tables agree."""

from __future__ import annotations

import fnmatch
import re
import runpy
import shlex
import subprocess
from functools import cache
from pathlib import Path

import pytest
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from piimage import resolve
from piimage.cli import completion, examples
from piimage.cli.main import app
from piimage.errors import ExitCode
from piimage.flash import guard

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_FENCE = re.compile(r"^( *)```(.*?)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _without_code(text: str) -> str:
    return _FENCE.sub("", text)


def _examples() -> list[tuple[str, str]]:
    """Fenced blocks that say that they are a whole cluster.yaml."""
    return [
        (f"{_name(page)}:{number}", block[2])
        for page in PAGES
        for number, block in enumerate(_FENCE.findall(page.read_text(encoding="utf-8")))
        if block[1].split() == ["yaml", "cluster.yaml"]
    ]


def _commands() -> dict[str, TyperCommand]:
    """`base make` -> typer's command, for every command that can be run."""

    def walk(command: object, path: tuple[str, ...]) -> dict[str, TyperCommand]:
        if isinstance(command, TyperCommand):
            return {" ".join(path): command}
        assert isinstance(command, TyperGroup)
        found = {}
        for name, child in command.commands.items():
            found |= walk(child, (*path, name))
        return found

    return walk(get_command(app), ())


COMMANDS = _commands()


@cache
def _help(command: str) -> str:
    result = CliRunner().invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(("place", "text"), _examples(), ids=lambda value: value.split("\n")[0])
def test_an_example_of_a_cluster_yaml_is_valid(place, text, tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text(text, encoding="utf-8")
    resolve.load(path, env={}, check_secrets=False)


def test_readme_has_an_example():
    assert [place for place, _ in _examples() if place.startswith("README.md:")]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_help_with_an_example(command):
    text = " ".join(_help(command).split())
    assert re.search(rf"Example: (\S+ )?piimage {re.escape(command)}\b", text), text
    assert COMMANDS[command].help.strip().splitlines()[0].endswith((".", "2."))


@pytest.mark.parametrize("command", COMMANDS)
def test_an_example_in_the_help_is_a_command_line_that_parses(command):
    example = re.search(r"Example: (piimage [^\n]+)", COMMANDS[command].help or "")
    assert example is not None
    lines = [example[1], *re.findall(r"^ {4}(piimage .+)$", _help(command), re.MULTILINE)]
    assert len(lines) == 1 + len(examples.FURTHER.get(command, ()))
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        parsed = COMMANDS[command].make_context(command, words[len(command.split()) :])
        assert parsed.command is COMMANDS[command]
        assert len(line) < 80 - len("    "), (
            "is broken by a terminal of 80 columns"
        )  # typer's margin


def test_further_examples_are_of_commands():
    assert set(examples.FURTHER) - set(COMMANDS) == set()


@pytest.mark.parametrize("name", ["cli.md", "piimage.1"])
def test_variables_of_the_environment_are_explained(name):
    code = "".join(
        path.read_text(encoding="utf-8")
        for path in (ROOT / "piimage").rglob("*.py")
        if "guest" not in path.parts
    )
    read = {*re.findall(r"(?:environ\.get\(|envvar=)\"([A-Z_]+)\"", code)}
    read |= {*re.findall(r"\"(PIIMAGE_[A-Z]+_URL)\"", code)}
    read -= {"PATH", "TERM", "SUDO_UID"}  # what every program has
    page = (ROOT / "docs/reference" / name).read_text(encoding="utf-8")
    assert len(read) > 5
    assert {variable for variable in read if variable not in page} == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_stands_in_the_table_of_the_readme(command):
    rows = re.findall(r"^\| `piimage ([^`]+)` \|", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert [row for row in rows if f"{row} ".startswith(f"{command} ")]


def test_the_table_of_the_readme_has_commands_only():
    rows = re.findall(r"^\| `piimage ([^`]+)` \|", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert [row for row in rows if not any(f"{row} ".startswith(f"{c} ") for c in COMMANDS)] == []


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_options_named_beside_a_command_exist(page):
    """In lines of shell or inline code that begin with `piimage COMMAND`."""
    text = page.read_text(encoding="utf-8")
    lines = re.findall(r"^ *(?:\$ |sudo .*bin/)?piimage (.+)$", text, re.MULTILINE)
    lines += re.findall(r"`(?:\$ )?piimage ([^`]+)`", text)
    for line in lines:
        words = line.replace("...", "").split()
        command = next((c for n in (2, 1) if (c := " ".join(words[:n])) in COMMANDS), None)
        if command is None:
            continue
        known = _help(command)
        unknown = [w for w in words if w.startswith("--") and w.split("=")[0] not in known]
        assert unknown == [], line


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_within_the_project_lead_somewhere(page):
    broken = []
    for link in _LINK.findall(_without_code(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert broken == []


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = _HEADING.findall(_without_code(page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_generated_reference_is_current():
    page = runpy.run_path(str(ROOT / "docs" / "generate.py"))["page"]
    current = (ROOT / "docs" / "reference" / "cluster.md").read_text(encoding="utf-8")
    assert current == page(), "run `python docs/generate.py`"


@pytest.mark.parametrize("name", ["cli.md", "piimage.1"])
def test_the_pages_about_commands_are_current(name):
    targets = runpy.run_path(str(ROOT / "docs" / "manual.py"))["TARGETS"]
    (path,) = [path for path in targets if path.name == name]
    assert path.read_text(encoding="utf-8") == targets[path](), "run `python docs/manual.py`"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_and_its_options_stand_in_the_man_page(command):
    text = (ROOT / "docs" / "reference" / "piimage.1").read_text(encoding="utf-8")
    _, found, rest = text.replace("\\-", "-").partition(f"\n.SS piimage {command} ")
    assert found
    section = rest.partition("\n.S")[0]
    options = [o for p in COMMANDS[command].params for o in p.opts if o.startswith("--")]
    assert [option for option in options if option not in section] == []


def test_the_man_page_is_one():
    """By mandoc, which knows what man(7) allows; a date would change without the page."""
    page = str(ROOT / "docs" / "reference" / "piimage.1")
    argv = ["mandoc", "-T", "lint", "-W", "warning", page]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert [line for line in done.stdout.splitlines() if "missing date" not in line] == []
    argv = ["mandoc", "-T", "ascii", page]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True)
    text = re.sub(".\b", "", shown.stdout)
    assert "piimage - One cluster.yaml in, SD cards for a Raspberry Pi cluster out" in text
    assert "exit 2 if there is one." in " ".join(text.split())


@pytest.mark.parametrize(
    ("words", "offered"),
    [("piimage val", "validate"), ("piimage base m", "make"), ("piimage build --no", "--node"),
     ("piimage build --node node3", "node3"), ("piimage ssh node1", "node1"),
     ("piimage export svg s", "ssh-config svg")],
)  # fmt: skip
def test_the_shell_can_complete(words, offered, monkeypatch):
    """What the line that `--install-completion` writes asks for, beside the sample."""
    monkeypatch.chdir(ROOT)
    environment = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    result = CliRunner().invoke(
        app, prog_name="piimage", env={**environment, "_PIIMAGE_COMPLETE": "complete_bash"}
    )
    assert result.stdout.split() == offered.split()


def test_the_exit_codes_are_those_of_the_code():
    text = (ROOT / "docs" / "reference" / "exit-codes.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| `([A-Z_]+)` \|", text, re.MULTILINE)
    assert rows == [(str(code.value), code.name) for code in ExitCode]


def test_the_refusals_are_those_of_the_code():
    text = (ROOT / "docs" / "reference" / "refusals.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \|.*\| (?:`(--[^`]+)` )?\|$", text, re.MULTILINE)
    code = "".join(path.read_text() for path in (ROOT / "piimage" / "flash").glob("*.py"))
    named = set(re.findall(r"\bRefusal\(\s*\"([a-z-]+)\"", code))
    assert {name for name, _ in rows} == named | {"mounted", "mounted-elsewhere"}
    options = {f"--allow {name}" for name in guard.OVERRIDABLE} | {"--unmount"}
    assert {option for _, option in rows if option} == options


def test_the_readme_shows_what_validate_says(tmp_path, monkeypatch):
    text = README.read_text(encoding="utf-8")
    shown = re.search(r"^    \$ piimage validate\n(.*?)^    \$ ", text, re.MULTILINE | re.DOTALL)
    assert shown is not None
    (tmp_path / "cluster.yaml").write_bytes((ROOT / "cluster.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["validate"])
    said = [line.strip() for line in result.output.splitlines()]
    missing = [line for line in shown[1].splitlines() if line.strip() not in {*said, "..."}]
    assert missing == []


def test_every_page_of_the_docs_can_be_reached_from_the_readme():
    seen, waiting = set(), [README]
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        for link in _LINK.findall(_without_code(page.read_text(encoding="utf-8"))):
            target = (page.parent / link.partition("#")[0]).resolve()
            if target.is_dir():
                waiting += target.glob("*.md")
            elif target.suffix == ".md" and target.exists():
                waiting.append(target)
    assert set(PAGES) - seen == set()


def test_decisions_are_numbered_dated_and_settled():
    pages = sorted((ROOT / "docs" / "adr").glob("*.md"))
    for number, page in enumerate(pages, 1):
        title, _, state = page.read_text(encoding="utf-8").splitlines()[:3]
        assert page.name.startswith(f"{number:04}-")
        assert title.startswith(f"# {number}. ")
        assert re.fullmatch(r"\d{4}-\d\d-\d\d · (proposed|accepted|superseded by \d+)", state)


@pytest.mark.parametrize("text", [None, "version: 2\n"])
def test_no_nodes_are_offered_where_no_cluster_is(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    if text:
        (tmp_path / "cluster.yaml").write_text(text)
    assert completion.nodes("n") == []


def test_every_test_that_the_page_of_bases_names_is_there():
    page = (ROOT / "docs/reference/bases.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", page))
    tests = "".join(
        (ROOT / path).read_text(encoding="utf-8")
        for path in (
            "tests/unit/test_bases_traps.py",
            "tests/unit/test_bases_fedora.py",
            "tests/unit/test_bases_fedora_server.py",
            "tests/unit/test_bases_raspi.py",
            "tests/integration/test_vendor_bases.py",
            "tests/integration/test_fedora_base.py",
            "tests/integration/test_fedora_server.py",
            "tests/e2e/test_vendor_boots.py",
        )
    )

    assert len(named) > 15
    assert not {name for name in named if f"def {name}(" not in tests}


def test_every_part_of_the_package_has_its_room():
    """The table of CONTRIBUTING: `piimage/disk/`, `piimage/build.py`; further names of a row stand alone."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    firsts = re.findall(r"^\| (`(?:piimage/)?[^|]+) \|", text, re.MULTILINE)
    named = {
        name.removeprefix("piimage/") for row in firsts for name in re.findall(r"`([^`]+)`", row)
    }
    parts = {
        path.name + "/" * path.is_dir()
        for path in (ROOT / "piimage").iterdir()
        if (path.suffix == ".py" or path.is_dir()) and not path.name.startswith("_")
    }
    assert parts - named == set()
    assert {
        n for n in named - parts if not (ROOT / n).exists() and not n.startswith("make ")
    } == set()


def test_a_link_to_a_decision_has_its_number():
    links = re.compile(r"\[(?:ADR )?(\d+)\]\(\S*?(\d{4})-[a-z0-9-]+\.md\)")
    found = [(_name(page), *pair) for page in PAGES for pair in links.findall(page.read_text())]
    assert len(found) > 20
    assert [link for link in found if int(link[1]) != int(link[2])] == []


def test_every_file_of_a_plan_stands_in_the_table_of_files():
    """The plans over all vendors' images, `tests/cases/bases`, against the table `On a node`."""
    page = (ROOT / "docs/reference/files.md").read_text(encoding="utf-8")
    table = page.partition("## On a node")[2].partition("\n### ")[0]
    firsts = re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE)
    named = {name.replace("NAME", "*") for row in firsts for name in re.findall(r"`([^`]+)`", row)}
    patterns = [re.sub("^HOME", "/home/*", name) + "*" * name.endswith("/") for name in named]
    patterns += ["/srv/cluster", *ELSEWHERE]
    planned = {
        path
        for case in (ROOT / "tests/cases/bases").glob("*.txt")
        for path in re.findall(r"^(?:file|slot|link) (\S+)", case.read_text(), re.MULTILINE)
    }
    assert len(planned) > 60
    assert {
        p for p in planned if not any(fnmatch.fnmatchcase(p, each) for each in patterns)
    } == set()


#: What is told in the words below the table: where a base names its own first user, and what its first boot would do.
ELSEWHERE = ("/etc/lightdm/*", "/usr/lib/raspberrypi-sys-mods/*")
