"""What is usual for a board's wired port: for notes, never for a failure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Board:
    """`name` as the device tree begins; `link` in Mbit/s, `bandwidth` in MiB/s as MPI sees it."""

    name: str
    link: int
    bandwidth: int


#: The port of a 3B is 100 Mbit/s, that of a 3B+ hangs on USB 2; all that carry gigabit reach it.
BOARDS = (
    Board("Raspberry Pi 2 Model B", 100, 10),
    Board("Raspberry Pi 3 Model B Plus", 1000, 25),
    Board("Raspberry Pi 3 Model B", 100, 10),
    Board("Raspberry Pi 4", 1000, 90),
    Board("Raspberry Pi Compute Module 4", 1000, 90),
    Board("Raspberry Pi 5", 1000, 90),
    Board("Raspberry Pi Compute Module 5", 1000, 90),
)


def usual(model: str | None) -> Board | None:
    """The board of that model, or None for one that says nothing or is not known."""
    return next((board for board in BOARDS if model and model.startswith(board.name)), None)
