"""The program's first lines: Ctrl-C while the rest is still being imported ends it as quietly as later on."""

from __future__ import annotations

import sys


def main() -> None:
    """Import the command line and run it; never returns normally."""
    try:
        from piimage.cli.main import main as run  # noqa: PLC0415 -- inside, so that its import may be interrupted

        run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201 -- the program's own last word
        sys.exit(130)


if __name__ == "__main__":
    main()
