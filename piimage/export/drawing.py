"""A little SVG: shapes and text at places, escaped, in one look."""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

_FONT = "DejaVu Sans, Verdana, Helvetica, sans-serif"


def element(name: str, content: str = "", /, **attributes: object) -> str:
    """`<name ...>content</name>`; `_` in an attribute's name stands for `-`. The content is markup already."""
    words = "".join(
        f" {key.rstrip('_').replace('_', '-')}={quoteattr(str(value))}"
        for key, value in attributes.items()
    )
    return f"<{name}{words}>{content}</{name}>\n" if content else f"<{name}{words}/>\n"


def text(
    x: float,
    y: float,
    words: str,
    *,
    size: int = 13,
    fill: str = "#1f2933",
    anchor: str = "start",
    bold: bool = False,
) -> str:
    """A line of text whose baseline is at `y`."""
    weight = {"font_weight": "bold"} if bold else {}
    return element(
        "text", escape(words), x=x, y=y, font_size=size, fill=fill, text_anchor=anchor, **weight
    )


def box(
    x: float, y: float, width: float, height: float, *, fill: str, stroke: str, dashed: bool = False
) -> str:
    """A rectangle with round corners."""
    dash = {"stroke_dasharray": "6 4"} if dashed else {}
    return element(
        "rect",
        x=x,
        y=y,
        width=width,
        height=height,
        rx=8,
        fill=fill,
        stroke=stroke,
        stroke_width=1.5,
        **dash,
    )


def line(
    x1: float,
    y1: float,
    x2: float,
    y2: float,
    *,
    stroke: str,
    width: float = 2,
    dashed: bool = False,
) -> str:
    """A straight line."""
    dash = {"stroke_dasharray": "6 4"} if dashed else {}
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, stroke=stroke, stroke_width=width, **dash)


def waves(x: float, y: float, *, stroke: str) -> str:
    """The sign for Wi-Fi: a point at (x, y) and three arcs above it."""
    arcs = "".join(
        element(
            "path",
            d=f"M {x - r:g} {y - r:g} A {r * 1.42:g} {r * 1.42:g} 0 0 1 {x + r:g} {y - r:g}",
            fill="none",
            stroke=stroke,
            stroke_width=2,
        )
        for r in (3.5, 7, 10.5)
    )
    return arcs + element("circle", cx=x, cy=y, r=1.8, fill=stroke)


def group(title: str, content: str) -> str:
    """Shapes that belong together; the title shows where a pointer rests."""
    return element("g", element("title", escape(title)) + content)


def document(width: float, height: float, title: str, content: str) -> str:
    """A whole SVG 1.1 file on a white ground."""
    ground = element("rect", width=width, height=height, fill="#ffffff")
    return element(
        "svg",
        "\n" + element("title", escape(title)) + ground + content,
        xmlns="http://www.w3.org/2000/svg",
        width=f"{width:g}",
        height=f"{height:g}",
        viewBox=f"0 0 {width:g} {height:g}",
        font_family=_FONT,
    )


def shortened(words: str, most: int) -> str:
    """Words of at most `most` characters."""
    return words if len(words) <= most else f"{words[: most - 1]}\N{HORIZONTAL ELLIPSIS}"
