from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from piimage.report import (
    WIDTH,
    Diagnostic,
    Severity,
    dotted,
    in_order,
    render,
    render_text,
    shown,
    summary,
)


def error(**more):
    fields = {"severity": Severity.ERROR, "message": "it is wrong", "file": "x.yaml", "line": 7}
    return Diagnostic(**{**fields, "column": 5, "end_column": 8, "source": "abc def ghi", **more})


def test_the_text_form():
    text = render(error(hint="do it right"))

    assert text == (
        "error: it is wrong\n"
        " --> x.yaml:7:5\n"
        "  |\n"
        "7 | abc def ghi\n"
        "  |     ^^^\n"
        "  = hint: do it right"
    )


def test_line_numbers_widen_the_margin():
    assert render(error(line=123)).splitlines()[1:4] == [
        "   --> x.yaml:123:5",
        "    |",
        "123 | abc def ghi",
    ]


def test_without_a_place():
    found = Diagnostic(severity=Severity.NOTE, message="by the way", hint="look")

    assert render(found) == "note: by the way\n  hint: look"


def test_tabs_and_wide_characters_keep_the_caret_in_place():
    lines = render(error(source="\t日本 def", column=5, end_column=8)).splitlines()

    assert lines[3] == "7 |     日本 def"
    assert lines[4] == "  | " + " " * 9 + "^^^"


def test_marked_wide_characters_have_wide_carets():
    lines = render(error(source="日本", column=1, end_column=3)).splitlines()

    assert lines[4] == "  | ^^^^"


def test_a_long_line_is_cut_around_the_caret():
    source = "a" * 500 + "HERE" + "b" * 500

    lines = render(error(source=source, column=501, end_column=505)).splitlines()

    shown_line, caret = lines[3][4:], lines[4][4:]
    assert len(shown_line) <= WIDTH
    assert shown_line.startswith("...")
    assert shown_line.endswith("...")
    assert shown_line[caret.index("^") : caret.rindex("^") + 1] == "HERE"


def test_control_characters_do_not_reach_the_terminal():
    text = render(error(source="a\x1b[31mb\u202ec", column=1, end_column=2))

    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\x1b" not in shown("\x1b[2J")


def test_colour_only_when_asked():
    assert "\x1b" not in render(error())
    assert "\x1b[1;31m" in render(error(), colour=True)


@given(st.text(max_size=300), st.integers(-5, 400), st.none() | st.integers(-5, 400))
def test_any_line_and_any_columns_give_text(source, column, end):
    lines = render(error(source=source, column=column, end_column=end)).splitlines()

    assert len(lines) == 5
    assert "^" in lines[4]


def test_json_has_stable_keys():
    assert error(path="nodes[2].mac", code="mac").to_json() == {
        "severity": "error",
        "code": "mac",
        "message": "it is wrong",
        "hint": None,
        "path": "nodes[2].mac",
        "file": "x.yaml",
        "line": 7,
        "column": 5,
        "end_column": 8,
    }


def test_order_is_by_place_and_each_once():
    late, early = error(line=9), error(line=2)
    nowhere = Diagnostic(severity=Severity.WARNING, message="hm")

    assert in_order([nowhere, late, early, late]) == (early, late, nowhere)


def test_summary_counts():
    warning = Diagnostic(severity=Severity.WARNING, message="hm")

    assert summary([error(), error(line=1), warning]) == "2 errors, 1 warning"
    assert summary([]) == ""


def test_several_are_parted_by_an_empty_line():
    assert render_text([error(), error()]).count("\n\n") == 1


def test_paths():
    assert dotted(("nodes", 2, "mac")) == "nodes[2].mac"
    assert shown("x" * 100) == "`" + "x" * 57 + "...`"
