"""What the code must look like, beyond what ruff, mypy and import-linter can say."""

from __future__ import annotations

import ast
import functools
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "piimage"
MODULES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = sorted(
    path for place in ("piimage", "tests", "bench", "docs") for path in (ROOT / place).rglob("*.py")
)
#: Sent to the guest and run there: never imported here, and so free to start the guest's programs.
IN_THE_GUEST = {*(PACKAGE / "boot").glob("inside*.py"), *(PACKAGE / "guest").rglob("*.py")}
MAX_LINES = 300
#: Names that say nothing of what a module knows.
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "manager", "common", "misc"}
#: What may not stand in a repository that takes its packages from where the machine is told to.
#: Brackets keep the pattern from finding itself.
REGISTRIES = re.compile(
    r"""(deb|ftp|security|archive|snapshot|ports|cdimage|mirrors?)([.]\w+)*[.](debian|ubuntu|raspbian)[.](org|com)
      | (archive|downloads?)[.](raspberrypi|raspbian)[.](org|com)
      | (dl|download|mirrors?)[.]fedoraproject[.]org
      | pypi[.]org | pythonhosted[.]org | registry[.]npmjs | crates[.]io | proxy[.]golang[.]org
      | (docker|quay|ghcr)[.]io""",
    re.VERBOSE | re.IGNORECASE,
)
NOT_OURS = {".git", ".venv", ".hypothesis", "dist", "build", "LICENSE"}


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def _source(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _naming(word: str) -> list[Path]:
    """Our modules that hold `word`: what they do with it has still to be read, but others have not."""
    return [path for path in MODULES if word in _source(path)]


@functools.cache
def _tree(path: Path) -> ast.Module:
    """A module of ours, parsed once for all that ask."""
    return ast.parse(_source(path))


@functools.cache
def _imports(path: Path) -> frozenset[str]:
    """Dotted names of all that a module imports, wherever it does so."""
    found: set[str] = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def _comments(path: Path) -> list[str]:
    """The comments of a script that may silence a checker: of one that has none of the words, no comments."""
    text = _source(path)
    if re.search(r"#.*\b(noqa|type: ?ignore)\b", text) is None:
        return []
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return [token.string for token in tokens if token.type == tokenize.COMMENT]


def test_modules_are_short_and_named_for_what_they_know():
    long = {_name(p): n for p in MODULES if (n := p.read_bytes().count(b"\n")) > MAX_LINES}
    assert long == {}
    parts = {_name(p): {p.stem, *p.relative_to(PACKAGE).parent.parts} for p in MODULES}
    assert {name for name, said in parts.items() if EMPTY_NAMES & said} == set()


def test_only_run_starts_processes():
    modules = [path for path in _naming("subprocess") if path not in IN_THE_GUEST]
    starters = {_name(path) for path in modules if "subprocess" in _imports(path)}
    assert starters == {"piimage/run.py"}


def test_only_disk_guestfs_talks_to_libguestfs():
    talkers = {_name(path) for path in _naming("guestfs") if "guestfs" in _imports(path)}
    assert talkers == {"piimage/disk/guestfs.py"}


def test_what_runs_in_the_guest_is_imported_by_nobody():
    named = re.compile(r"piimage\.(boot\.inside|guest)\b")
    modules = {*_naming("inside"), *_naming("guest")}
    importers = {_name(path) for path in modules if any(map(named.match, _imports(path)))}
    assert importers == set()


@pytest.mark.parametrize("path", sorted(IN_THE_GUEST), ids=_name)
def test_what_runs_in_the_guest_needs_nothing_of_ours_and_an_old_python(path):
    modules = {
        node.module or "" if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(ast.parse(path.read_bytes(), feature_version=(3, 7)))
        if isinstance(node, (ast.Import, ast.ImportFrom)) and not getattr(node, "level", 0)
        for alias in node.names
    }
    assert {name.split(".")[0] for name in modules} - sys.stdlib_module_names == set()


def test_only_the_command_line_prints():
    printers = {
        _name(path)
        for path in _naming("print")
        if path not in IN_THE_GUEST
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    }
    command_line = "piimage/cli/", "piimage/__main__.py"
    assert {name for name in printers if not name.startswith(command_line)} == set()


def unexplained(comment: str) -> bool:
    """Whether a comment silences a checker without a rule or without a reason."""
    if re.search(r"\bnoqa\b", comment):
        return re.search(r"\bnoqa: [A-Z]+[0-9]+(, [A-Z]+[0-9]+)* -- \S", comment) is None
    if re.search(r"\btype: ?ignore\b", comment):
        return re.search(r"\btype: ignore\[[a-z-]+(, ?[a-z-]+)*\]\s+(#|--) ?\S", comment) is None
    return False


def test_whatever_silences_a_checker_says_why():
    silencing = re.compile(r"^#.*\b(noqa|type: ?ignore)\b(:|\[|$)")
    found = {
        _name(p): [c for c in _comments(p) if silencing.search(c) and unexplained(c)]
        for p in SCRIPTS
    }
    assert {name: comments for name, comments in found.items() if comments} == {}


@pytest.mark.parametrize(
    ("comment", "expected"),
    [
        ("# noqa: S105", True),
        ("# noqa", True),
        ("# noqa: S105 -- a policy, not a password", False),
        ("# noqa: S105, ANN401 -- a policy", False),
        ("# type: ignore", True),
        ("# type: ignore[override]", True),
        ("# type: ignore[override]  # the base class is wrong", False),
    ],
)
def test_what_counts_as_a_reason(comment, expected):
    assert unexplained(comment) is expected


def _texts() -> list[Path]:
    """Every file of the project that is text."""
    found = [path for path in ROOT.iterdir() if path.is_file()]
    for place in ROOT.iterdir():
        if place.is_dir() and place.name not in NOT_OURS and not place.name.endswith("_cache"):
            found += [path for path in place.rglob("*") if path.is_file()]
    return [
        path
        for path in sorted(found)
        if path.name not in NOT_OURS
        and path.suffix not in {".pyc", ".img"}
        and not {part for part in path.relative_to(ROOT).parts if part.endswith(".state")}
    ]


def test_no_file_names_the_host_of_a_package_registry():
    named = {}
    catalog = set((ROOT / "profiles" / "images").iterdir())  # where images are is what it is for
    for path in set(_texts()) - catalog:
        text = path.read_text(encoding="utf-8", errors="replace")
        match = REGISTRIES.search(text)
        if match:
            named[_name(path)] = match[0]
    assert named == {}


def test_the_pattern_finds_registries():
    for host in ("deb.debian", "security.debian", "ftp.de.debian", "snapshot.debian"):
        assert REGISTRIES.search(f"https://{host}.org/debian")  # in two parts: this is a file too
    assert REGISTRIES.search("archive.ubuntu" + ".com")
    assert not REGISTRIES.search("https://www.raspberrypi.com/documentation")


def test_a_card_is_written_without_any_library():
    """As the guest of tests/e2e/test_flash_devices.py does, which has none."""
    code = (
        "import sys\n"
        "for name in ('blake3', 'zstandard', 'crc32c', 'pydantic', 'yaml', 'typer'):\n"
        "    sys.modules[name] = None\n"
        "import piimage.flash.payload, piimage.flash.writer, piimage.flash.hold, piimage.flash.guard\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
