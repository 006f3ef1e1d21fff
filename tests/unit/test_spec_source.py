from __future__ import annotations

import time

import pytest

from piimage.errors import ConfigError
from piimage.report import Severity
from piimage.spec import source
from piimage.spec.masking import is_secret, mask, sounds_secret
from piimage.spec.messages import PLACES
from piimage.spec.place import Span


def parse(text):
    return source.parse(text, "x.yaml")


def mistake(text):
    with pytest.raises(ConfigError) as caught:
        parse(text)
    (found,) = caught.value.diagnostics
    return found


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("NO", "NO"),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-3", -3),
        ("0", 0),
        ("0o17", 15),
        ("0x1F", 31),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".inf", ".inf"),
        ("12:34:56:12:34:56", "12:34:56:12:34:56"),
        ("2024-01-31", "2024-01-31"),
        ("1_000", "1_000"),
        ("'12'", "12"),
        ('"a\\tb"', "a\tb"),
        ("!!str 12", "12"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    found = parse(f"a: {text}\n").data["a"]

    assert found == value
    assert type(found) is type(value)


def test_positions_of_keys_and_values():
    document = parse("a: 1\nb:\n  - {c: d e}\n")

    assert document.keys["b",] == Span(1, 0, 1, 1)
    assert document.span(("b", 0, "c")) == Span(2, 8, 2, 11)
    assert document.span(("b", 0, "c"), key=True) == Span(2, 5, 2, 6)
    assert document.span(("b", 0, "x", "y")) == document.values["b", 0]


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")

    document = source.read(path)

    assert document.data == {"a": 1, "b": 2}
    assert document.keys["b",] == Span(1, 0, 1, 1)


def test_ten_megabytes_are_one_quick_error(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"a: 1\n" * (2 << 20))

    start = time.perf_counter()
    with pytest.raises(ConfigError) as caught:
        source.read(path)

    assert time.perf_counter() - start < 0.5
    (found,) = caught.value.diagnostics
    assert found.message == "the file is larger than 1 MiB"


def test_files_that_cannot_be_read(tmp_path):
    for path, words in ((tmp_path, "directory"), (tmp_path / "no", "no such file")):
        with pytest.raises(ConfigError) as caught:
            source.read(path)
        assert words in caught.value.diagnostics[0].message


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "{a: " * 100_000,
        "a: " + "[x, " * 50_000,
        "- " * 100_000,
        "a: '" + "x" * 1_000_000 + "'\n" + "b" * 1000,
        "#" * 1_000_000,
        "a: |\n" + "  x\n" * 200_000 + "\tb",
        "? " * 50_000,
        "&a " * 50_000,
    ],
)
def test_hostile_files_end_soon(text):
    start = time.perf_counter()
    with pytest.raises(ConfigError):
        parse(text)

    assert time.perf_counter() - start < 5


def test_aliases_count_as_often_as_they_are_used():
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 9))

    assert "20,000" in mistake("l0: &l0 [x]\n" + levels).message


def test_an_alias_has_the_place_of_its_anchor():
    document = parse("a: &x {b: 1}\nc: *x\n")

    assert document.data["c"] == {"b": 1}
    assert document.span(("c", "b")) == document.span(("a", "b"))


def test_a_key_given_twice_leaves_the_rest_readable():
    document = parse("a: 1\nb: 2\na: 3\n")

    (problem,) = document.problems
    assert problem.severity is Severity.ERROR
    assert (problem.line, problem.column, problem.path) == (3, 1, "a")
    assert document.data["b"] == 2


def test_several_mistakes_that_leave_the_rest_readable_are_all_told():
    document = parse("a: 007\nb: !x y\nc: 1\nc: 2\n<<: {d: 1}\n")

    codes = [problem.code for problem in document.problems]
    assert codes == ["leading-zero", "tag", "duplicate-key", "merge-key"]


def test_secrets_are_masked_in_the_line_of_any_finding():
    document = parse("wifi: {ssid: lab, psk: hunter2, x: 1}\n")

    found = document.diagnostic(Severity.ERROR, ("wifi", "x"), "wrong")

    assert found.source == "wifi: {ssid: lab, psk: *******, x: 1}"


def test_a_secret_over_several_lines_or_behind_an_alias_is_masked():
    document = parse('a: &p "one\n  two"\npsk: *p\nb: x\n')

    shown = [document.at(Severity.ERROR, Span(line, 0, line, 1), "x").source for line in (0, 1)]
    assert "one" not in shown[0]
    assert "two" not in shown[1]


def test_a_secret_in_a_line_that_is_no_yaml_is_masked():
    assert "hunter2" not in (mistake("wifi: {ssid: lab, psk: hunter2\n").source or "")
    assert "hunter2" not in (mistake("password: hunter2: x\n").source or "")
    assert mask("# old psk: hunter2, new: x", 0, ()) == "# old psk: *******, new: x"


def test_references_are_shown():
    for value in ("env:PSK", "file:~/psk", "locked"):
        assert not is_secret(("network", "wifi", "psk"), value)
        assert mask(f"psk: {value}", 0, ()) == f"psk: {value}"


def test_only_secret_fields_sound_secret():
    names = {name for model in PLACES.values() for name in model.model_fields}

    assert {name for name in names if sounds_secret(name)} == {"psk", "password"}
    assert all(
        map(sounds_secret, ("hash", "pasword", "passwd", "pks", "pskk", "Passphrase", "pwd"))
    )
