"""Built twice, at another time, in another place, in another time zone: the same bytes."""

from __future__ import annotations

from factory import factory_at
from readback import tool


def test_a_variant_built_again_is_the_same_to_the_bit(built, base_file, tmp_path):
    """The head's, whose launch comes first: the order in which blocks are given out is part of it."""
    again = factory_at(tmp_path / "somewhere-else", built.factory.launches)
    again.more = {"TZ": "Asia/Tokyo", "LANG": "C"}
    again.run("base", "import", base_file, "--name", "phony")
    before = again.launches.count()

    again.run("build", "--only-variants", "--node", "0")

    assert again.launches.count() > before
    head = again.dist / "variants" / "head"
    for kind in ("img", "bmap", "sha256"):
        tool("cmp", f"{head}.{kind}", built.factory.dist / "variants" / f"head.{kind}")
    ours, theirs = (f.manifest()["variants"]["head"] for f in (again, built.factory))
    assert ours == theirs
    assert len(ours["content"]) == 64
