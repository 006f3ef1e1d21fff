"""The only module that starts processes: list argv, no shell, every command logged, every failure explained."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import signal
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, NoReturn

from piimage.errors import MissingToolError, ToolFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

log = logging.getLogger(__name__)

#: Debian package of each program we start, for the hint when it is missing.
PACKAGES = {
    "apt-cache": "apt",
    "apt-config": "apt",
    "apt-get": "apt",
    "blkid": "util-linux",
    "bmaptool": "bmap-tools",
    "cp": "coreutils",
    "debugfs": "e2fsprogs",
    "depmod": "kmod",
    "dpkg-deb": "dpkg",
    "dumpe2fs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "fakeroot": "fakeroot",
    "fallocate": "util-linux",
    "findmnt": "util-linux",
    "fsck.fat": "dosfstools",
    "fuse2fs": "fuse2fs",
    "gpg": "gpg",
    "gpgv": "gpgv",
    "mcopy": "mtools",
    "mdel": "mtools",
    "mdir": "mtools",
    "mke2fs": "e2fsprogs",
    "mkfs.vfat": "dosfstools",
    "mmd": "mtools",
    "mmdebstrap": "mmdebstrap",
    "newuidmap": "uidmap",
    "qemu-aarch64-static": "qemu-user-static",
    "qemu-arm-static": "qemu-user-static",
    "qemu-img": "qemu-utils",
    "qemu-io": "qemu-utils",
    "qemu-system-aarch64": "qemu-system-arm",
    "resize2fs": "e2fsprogs",
    "rpmkeys": "rpm",
    "setpriv": "util-linux",
    "sfdisk": "fdisk",
    "ssh": "openssh-client",
    "umount": "mount",
    "unshare": "util-linux",
    "visudo": "sudo",
    "xfs_repair": "xfsprogs",
    "xz": "xz-utils",
    "zstd": "zstd",
}

#: For callers of `process`: a stream that they read or write, and what it yields.
PIPE = subprocess.PIPE
Process = subprocess.Popen[bytes]

#: Distributions keep file-system tools here and leave it out of an ordinary user's PATH.
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")


@dataclass(frozen=True, slots=True)
class Result:
    """What a finished process left: exit status and both streams as bytes."""

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text; undecodable bytes become U+FFFD."""
        return self.stdout.decode(errors="replace")


def search_path() -> str:
    """PATH with the sbin directories at its end."""
    parts = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(dict.fromkeys([*parts, *_SBIN]))


def find(tool: str) -> str:
    """Absolute path of a program; raises `MissingToolError` that says which package has it."""
    path = shutil.which(tool, path=search_path())
    if path is None:
        raise _missing(tool)
    return path


def require(*tools: str) -> None:
    """Raise one `MissingToolError` for all of these programs that are not there: before the work, not in it."""
    missing = [tool for tool in tools if not available(tool)]
    if missing:
        raise _missing(*missing)


def _missing(*tools: str) -> MissingToolError:
    names = ", ".join(f"`{tool}`" for tool in tools)
    packages = " ".join(dict.fromkeys(PACKAGES.get(tool, tool) for tool in tools))
    return MissingToolError(
        f"{names} {'is' if len(tools) == 1 else 'are'} not installed",
        hint=f"on Debian: `apt-get install {packages}`",
        tools=tools,
    )


def available(tool: str) -> bool:
    """Whether `find` would succeed."""
    return shutil.which(tool, path=search_path()) is not None


def run(
    argv: Sequence[str | Path],
    *,
    stdin: bytes | IO[bytes] | None = None,
    stdout: IO[bytes] | int | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    check: bool = True,
    timeout: float | None = None,
) -> Result:
    """Run a program to its end and return what it left.

    `stdin` is bytes or an open file (default: nothing), `stdout` an open file instead of a capture, `env` is
    added to a C.UTF-8 environment, `timeout` is in seconds. Raises `MissingToolError` if the program is not
    there and, with `check`, `ToolFailedError` with its last lines if it fails or overruns.
    """
    words = [find(str(argv[0])), *map(str, argv[1:])]
    log.debug("+ %s", shlex.join(words))
    data = stdin if isinstance(stdin, bytes) else None
    source = stdin if stdin is not None and not isinstance(stdin, bytes) else subprocess.DEVNULL
    with subprocess.Popen(
        words,
        stdin=source if data is None else subprocess.PIPE,
        stdout=stdout if stdout is not None else subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(env),
        cwd=cwd,
    ) as child:
        try:
            said, complained = child.communicate(data, timeout)
        except subprocess.TimeoutExpired as error:
            child.kill()
            raise ToolFailedError(f"`{argv[0]}` did not end within {timeout:g} s") from error
        except BaseException:
            child.kill()
            child.wait()
            raise
    result = Result(tuple(words), child.returncode, said or b"", complained or b"")
    if check and result.returncode != 0:
        raise failure(result)
    return result


@contextmanager
def process(
    argv: Sequence[str | Path],
    *,
    stdin: int | IO[bytes] | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    new_session: bool = False,
) -> Iterator[subprocess.Popen[bytes]]:
    """A running program that never outlives the `with` block: terminated, then killed after 5 s."""
    words = [find(str(argv[0])), *map(str, argv[1:])]
    log.debug("+ %s &", shlex.join(words))
    child = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        stdout=subprocess.PIPE if stdout is None else stdout,
        stderr=subprocess.STDOUT if stderr is None else stderr,
        env=_environment(env),
        cwd=cwd,
        start_new_session=new_session,
    )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream is not None:
                stream.close()


def become(argv: Sequence[str | Path]) -> NoReturn:
    """Go on as another program: this process, its streams and its terminal are the program's from now on.

    Raises `MissingToolError` if it is not there.
    """
    words = [find(str(argv[0])), *map(str, argv[1:])]
    log.debug("+ exec %s", shlex.join(words))
    os.execv(words[0], words)  # noqa: S606 -- without a shell is what is wanted


def failure(result: Result) -> ToolFailedError:
    """The error for a process that failed: its name, how it ended, its last words."""
    name = Path(result.argv[0]).name
    code = result.returncode
    if code < 0:
        ending = f"was killed by {_signal(-code)}"
    elif code == 127:  # noqa: PLR2004 -- the shell's and env's own "not found"
        ending = "could not start a program it needs (exit status 127)"
    else:
        ending = f"failed with exit status {code}"
    words = (result.stderr or result.stdout).decode(errors="replace").strip().splitlines()[-6:]
    detail = "".join(f"\n    {line}" for line in words)
    return ToolFailedError(f"`{name}` {ending}{detail}")


def _signal(number: int) -> str:
    """The signal's name; real-time signals have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    """The caller's environment in a known locale, with our PATH."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("LC_") and k != "LANGUAGE"}
    return {**kept, "LC_ALL": "C.UTF-8", "LANG": "C.UTF-8", "PATH": search_path(), **(extra or {})}
