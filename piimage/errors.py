"""Every failure a user can meet, and the exit code that goes with it.

Nothing below `piimage.cli` prints or exits: code raises one of these, `piimage.cli.main` catches it once.
A message says what is wrong in one lower-case sentence without a full stop; `hint` says what to do next.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from piimage.report import Diagnostic


class ExitCode(IntEnum):
    """What the shell sees; the table stands in docs/reference/exit-codes.md."""

    OK = 0
    FAILED = 1
    BAD_CONFIG = 2
    MISSING_TOOL = 3
    VERIFY_FAILED = 4
    DEVICE_REFUSED = 5
    REHEARSAL_FAILED = 6
    WRITE_ERROR = 7
    PARTIAL = 8
    INTERRUPTED = 130


class PiimageError(Exception):
    """A failure with a sentence for the user, and perhaps a hint."""

    exit_code: ClassVar[ExitCode] = ExitCode.FAILED

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(PiimageError):
    """One or more mistakes in what the user wrote, each with its place."""

    exit_code = ExitCode.BAD_CONFIG

    def __init__(
        self, message: str, *, diagnostics: Sequence[Diagnostic] = (), hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.diagnostics = tuple(diagnostics)


class MissingToolError(PiimageError):
    """A program or privilege that this machine does not have; `tools` are the programs, where it is those."""

    exit_code = ExitCode.MISSING_TOOL

    def __init__(self, message: str, *, hint: str | None = None, tools: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.tools = tuple(tools)


class ToolFailedError(PiimageError):
    """An external program ended with an error; the message holds its last words."""


class ImageError(PiimageError):
    """An image that is damaged, or laid out in a way that piimage does not support."""


class FetchError(PiimageError):
    """Something that only the network has, and that it did not give."""


class UnsupportedError(PiimageError):
    """The base cannot do what cluster.yaml asks of it."""

    exit_code = ExitCode.BAD_CONFIG


class StateError(PiimageError):
    """The cluster's state directory is absent, incomplete or not private."""


class VerifyError(PiimageError):
    """Bytes that should be there are not."""

    exit_code = ExitCode.VERIFY_FAILED


class DeviceRefusedError(PiimageError):
    """A device that may not be written to; `refusals` are the names of the reasons, where they have one."""

    exit_code = ExitCode.DEVICE_REFUSED

    def __init__(
        self, message: str, *, hint: str | None = None, refusals: Sequence[str] = ()
    ) -> None:
        super().__init__(message, hint=hint)
        self.refusals = tuple(refusals)


class RehearsalError(PiimageError):
    """A node did not come up as promised in QEMU."""

    exit_code = ExitCode.REHEARSAL_FAILED


class WriteFailedError(PiimageError):
    """The disk or card did not take the bytes (full, broken, pulled)."""

    exit_code = ExitCode.WRITE_ERROR


class InterruptedWriteError(PiimageError):
    """A card was being written when the user stopped it."""

    exit_code = ExitCode.INTERRUPTED


class UnansweredError(DeviceRefusedError):
    """A question before a card is written met nobody who could answer it."""


class SomeFailedError(PiimageError):
    """Of several things that were asked for, some failed; each has told its own reason."""

    exit_code = ExitCode.PARTIAL
