"""The page of a rehearsal: one golden of each kind, nothing from elsewhere, nothing unescaped, matrices that scale."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from phony_company import CLUSTER, smoke_report

from piimage.boot import page
from piimage.boot.checks import Finding
from piimage.boot.cluster_report import ClusterRehearsal
from piimage.boot.heatmap import number, svg
from piimage.boot.report import Rehearsal

HERE = Path(__file__).parent


def record(node, **more):
    kept = [Finding(f"check {n}", True, "a", "a") for n in range(57)]
    return Rehearsal(
        cluster="pico5", node=node.name, build="0123456789ab", machine="virt", accel="tcg",
        artifact=Path("/d/worker.img"), disk_size=1, cmdline="a", additions=("console=ttyAMA0",),
        console=Path(f"/d/rehearsal/{node.name}/console.log"), findings=kept,
        timings={"login": 226.0 + node.number, "facts": 60.5, "power_off": 9.4}, **more,
    )  # fmt: skip


def rehearsal(*, ok=True, nodes=CLUSTER.nodes):
    report = ClusterRehearsal(
        cluster="pico5", accel="tcg", nodes={n.name: record(n) for n in nodes},
        order=tuple(n.name for n in nodes), one_by_one=not ok, memory=1024, started=1795387040,
        timings={"logins": 331.0, "smoke": 71.2, "all": 512.0}, smoke=smoke_report(nodes, ok=ok),
        additions=["the second NIC was brought up"],
    )  # fmt: skip
    if not ok:
        report.killed = "node0"
        report.nodes["node2"] = record(nodes[2], error="the kernel panicked\n    <b>last</b> words")
        report.nodes["node1"].findings.append(Finding("wired <address>", False, "a & b", "none"))
        report.findings.append(Finding("Wi-Fi stand-in on node4", None, "up", "no sudo"))
        report.smoke["pairs"] = report.smoke["pairs"][1:]
    return report


@pytest.mark.parametrize("kind", ["passed", "failed"])
def test_the_page_is_as_it_was_looked_at(kind, update):
    """Look at it in a browser, light and dark, before `--update`."""
    golden = HERE / f"boot_page_{kind}.html"
    found = page.html(rehearsal(ok=kind == "passed").to_json())
    if update:
        golden.write_text(found)

    assert found == golden.read_text()


def test_the_page_needs_nothing_from_elsewhere():
    found = page.html(rehearsal().to_json())

    assert not re.search(r"<(script|link|img|iframe)|@import|url\(|https?:", found)
    assert "prefers-color-scheme: dark" in found


def test_a_problem_stands_on_top_with_its_console():
    found = page.html(rehearsal(ok=False).to_json())

    assert found.index("the kernel panicked") < found.index("<svg")
    assert "&lt;b&gt;last&lt;/b&gt; words" in found
    assert "<b>" not in found
    assert "failed: 3 problems" in found
    assert "The power of node0 was cut." in found


def test_a_rehearsal_without_a_smoke_test_has_a_page_too():
    report = rehearsal()
    report.smoke = None
    report.findings.append(Finding("smoke test", False, "a report from all nodes", "it hung"))

    found = page.html(report.to_json())

    assert "<svg" not in found
    assert "it hung" in found


def cells(names, values):
    root = ET.fromstring(svg(names, values, title="t", unit="us"))
    return {
        group.find("title").text: (group.find("rect").attrib, group.findtext("text"))
        for group in root.iter("g")
    }


def test_a_matrix_shows_every_pair_both_ways():
    found = cells(["a", "b", "c"], {("a", "b"): 1.0, ("b", "a"): 3.0, ("a", "c"): 2.0})

    assert found["a to b: 1.00 us"][0]["fill-opacity"] == "0.08"
    assert found["b to a: 3.00 us"][0]["fill-opacity"] == "0.75"
    assert found["a to c: 2.00 us"][1] == "2.00"
    assert found["c to a: no answer"][0]["class"] == "empty"
    assert len(found) == 6


def test_equal_values_are_drawn_alike():
    found = cells(["a", "b"], {("a", "b"): 5.0, ("b", "a"): 5.0})

    assert {rect["fill-opacity"] for rect, _ in found.values()} == {"0.42"}


def test_a_large_matrix_has_small_cells_without_numbers():
    names = [f"node{n}" for n in range(64)]
    text = svg(names, {(a, b): 1.0 for a in names for b in names if a != b}, title="t", unit="us")
    root = ET.fromstring(text)

    assert int(root.attrib["width"]) < 900
    assert 'class="value"' not in text
    assert text.count("rotate(-90") == 64
    assert "node63 to node0: 1.00 us" in text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0.00"), (9.876, "9.88"), (45.67, "45.7"), (12345.6, "12346")]
)
def test_numbers(value, text):
    assert number(value) == text
