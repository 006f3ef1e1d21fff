"""Places for the test's own files: a directory in each share, else one on every node."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from .reach import command, everywhere, run

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .reach import Said
    from .roster import Node, Roster

_MARK = "mark"


class Scratch:
    """Directories named by a random token, gone again after `clear`.

    `marks` maps a share to a file in it that holds the token; a share that the user may not write
    to, or that is not there, has none.
    """

    def __init__(self, roster: Roster, limit: float) -> None:
        self.token = secrets.token_hex(8)
        self.marks: dict[str, str] = {}
        self._roster = roster
        self._limit = limit
        self._copied: list[Node] = []
        for share in roster.shares:
            directory = f"{share.path}/.piimage-smoke-{self.token}"
            script = 'mkdir -m 755 -- "$1" && cat >"$1"/mark && chmod 644 "$1"/mark'
            made = run(["sh", "-c", script, "sh", directory], limit, self.token.encode())
            if made.status == 0:
                self.marks[share.path] = f"{directory}/{_MARK}"

    def copy(self, program: Path, nodes: Iterable[Node]) -> tuple[Path, dict[str, Said]]:
        """The same place on all `nodes` for a copy of `program`; and what went wrong on which node."""
        place = Path("/tmp", f"piimage-smoke-{self.token}")  # noqa: S108 -- the name is random, the mode 0700
        script = 'umask 077 && mkdir -p -- "$1" && cat >"$1"/program && chmod 700 "$1"/program'
        content = program.read_bytes()
        self._copied = list(nodes)

        def send(node: Node) -> Said:
            argv = command(node, self._roster.head, ["sh", "-c", script, "sh", str(place)])
            return run(argv, self._limit, content)

        sent = everywhere(send, self._copied)
        return place / "program", {name: said for name, said in sent.items() if said.status != 0}

    def clear(self) -> None:
        """Remove everything; what cannot be removed is left, since its node is gone or hangs."""
        for mark in self.marks.values():
            run(["rm", "-rf", "--", str(Path(mark).parent)], self._limit)

        def remove(node: Node) -> None:
            place = f"/tmp/piimage-smoke-{self.token}"  # noqa: S108 -- as above
            run(command(node, self._roster.head, ["rm", "-rf", "--", place]), self._limit)

        everywhere(remove, self._copied)
