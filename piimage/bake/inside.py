"""Become a program in a tree that it cannot leave: `python3 inside.py TREE PROGRAM [ARGUMENT...]`.

`TREE` is a mount point of a mount namespace that is ours alone. It becomes the root of all, and nothing else stays
mounted (pivot_root(2)): there is no outside to climb to, as there is from chroot(2). Of root's capabilities those
stay that installing packages takes (about what containers have): no mounts, devices, modules, raw disks, clocks, and
no file handles (CAP_DAC_READ_SEARCH), with which files beside the bind mounts could be opened.

fsync(2) and the like do nothing: a scratch image need not survive a power cut, and dpkg syncs its data base after
every package. A seccomp filter answers 0 in the kernel's place for the program and all that it starts, native or
emulated (systemd-nspawn does the same with `--suppress-sync`). Where the kernel refuses the filter the program runs
all the same, and slower.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
_ALLOW, _ANSWER_0 = 0x7FFF0000, 0x00050000  # SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO with errno 0
_NUMBER, _ARCHITECTURE = 0, 4  # offsets in struct seccomp_data
#: Machine -> AUDIT_ARCH_*, and the numbers of fsync, fdatasync, sync, syncfs and sync_file_range (asm/unistd.h).
_CALLS = {
    "x86_64": (0xC000003E, (74, 75, 162, 306, 277)),
    "aarch64": (0xC00000B7, (82, 83, 81, 267, 84)),
}
#: The system call's number by machine (asm/unistd.h), and umount2's flag (linux/fs.h).
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_MNT_DETACH = 2
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24  # linux/prctl.h
#: linux/capability.h: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, NET_BIND_SERVICE, SYS_CHROOT,
#: AUDIT_WRITE, SETFCAP.
_KEPT = frozenset({0, 1, 3, 4, 5, 6, 7, 10, 18, 29, 31})


def program(architecture: int, calls: tuple[int, ...]) -> bytes:
    """The filter in classic BPF (struct sock_filter): code, jump if true, jump if false, operand."""
    count = len(calls)
    lines = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 0, count + 1, architecture),
        (_LOAD, 0, 0, _NUMBER),
        *((_EQUAL, count - index, 0, number) for index, number in enumerate(calls)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ANSWER_0),
    ]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def install() -> bool:
    """Filter this process and its children; False where that cannot be."""
    known = _CALLS.get(os.uname().machine)
    if known is None:
        return False
    code = program(*known)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))
    pointer = ctypes.create_string_buffer(header, len(header))
    libc = ctypes.CDLL(None, use_errno=True)
    status: int = libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, pointer, 0, 0)
    return status == 0


def enter(tree: str) -> None:
    """Make `tree` the root of this mount namespace; raises `OSError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    os.chdir(tree)
    # The old root comes to lie over the new one, and is taken away from there (pivot_root(2)).
    _checked(libc.syscall(_PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root")
    _checked(libc.umount2(b".", _MNT_DETACH), "umount")
    os.chdir("/")


def drop() -> None:
    """Give up all capabilities but `_KEPT`, for this process's programs and theirs; raises `OSError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    number = 0
    while libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) >= 0:
        if number not in _KEPT:
            _checked(libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0), f"capability {number}")
        number += 1


def _checked(status: int, what: str) -> None:
    if status != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


if __name__ == "__main__":
    install()
    enter(sys.argv[1])
    drop()
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 -- becoming that program is what this one is for
