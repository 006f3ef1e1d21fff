"""Both ends of a card, where partition tables and signatures are: blank from the first byte on, until all is proven."""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.errors import PiimageError, WriteFailedError
from piimage.flash.medium import CHUNK
from piimage.flash.ranges import BLOCK, Range, pieces, without

if TYPE_CHECKING:
    from collections.abc import Sequence

    from piimage.flash.medium import Medium

#: The first block, where the partition table is.
FIRST: Range = (0, BLOCK)
_TAIL = 1 << 20
#: Requests near the end are small: some readers fail at large ones (the kernel's `last_sector_bug`).
_LAST = 64 << 10


class Ends:
    """Those of the card `medium`, whose head has `head` bytes."""

    def __init__(self, medium: Medium, head: int) -> None:
        self._medium, self._head = medium, head
        #: Whether the card has no partition table, by us.
        self.is_blank = False

    def blank(self, keep: Sequence[Range]) -> None:
        """No partition table, no old signatures at both ends, but for `keep`; the first block goes first."""
        self._no_table()
        self._medium.zero(BLOCK, self._head - BLOCK)
        self.zero_tail(keep)
        self._medium.flush()

    def zero_tail(self, keep: Sequence[Range]) -> None:
        """Zeros over the last MiB, but for `keep`: an old GPT has its copy at the end."""
        size = self._medium.size
        start = max(self._head, (size - _TAIL) // BLOCK * BLOCK)
        careful = (size - _LAST) // BLOCK * BLOCK
        for at, length in without([(start, size - start)] if start < size else [], keep):
            for begin, count in pieces([(at, length)], BLOCK if at >= careful else CHUNK):
                self._medium.zero(begin, count)

    def take_back(self, cause: BaseException) -> None:
        """The partition table goes again, for `cause`: what could not be proven is no card.

        Raises `WriteFailedError` where the card does not do that, and may have its table.
        """
        try:
            self._no_table()
        except WriteFailedError as error:
            if self.is_blank:
                return
            why = cause.message if isinstance(cause, PiimageError) else "interrupted"
            raise WriteFailedError(
                f"{why}; the card may have its partition table already, and does not take it back: {error.message}",
                hint="it is not proven: `--update` reads all of it, and mends it",
            ) from cause

    def _no_table(self) -> None:
        self._medium.zero(*FIRST)
        self._medium.flush()
        self.is_blank = True
