"""The same question to several nodes, some at a time, with a line on the board for each."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING

from piimage.errors import RehearsalError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from piimage.progress import Progress

#: Each answer, as each start, keeps a processor of an emulating host busy.
AT_ONCE = max(2, os.cpu_count() or 1)


def each(
    title: str,
    names: Sequence[str],
    job: Callable[[str], str],
    *,
    progress: Progress,
    interrupted: Callable[[], None],
) -> dict[str, RehearsalError]:
    """Do `job`, which says in words what came of it, for each name; the answer has those that failed.

    `interrupted` is called before an interrupt or an unforeseen error goes on: it must make every job end soon.
    """
    errors: dict[str, RehearsalError] = {}
    with progress.board(title, names) as board, ThreadPoolExecutor(AT_ONCE) as pool:

        def do(name: str) -> str:
            board.note(name, "under way")
            return job(name)

        futures = {pool.submit(do, name): name for name in names}
        try:
            for future in as_completed(futures):
                try:
                    board.done(futures[future], future.result())
                except RehearsalError as error:
                    errors[futures[future]] = error
                    words = error.message.partition("\n")[0]
                    board.done(futures[future], words, ok=False)
        except BaseException:
            interrupted()
            pool.shutdown(cancel_futures=True)
            raise
    return errors
