"""Run a program whose fsync(2) and the like do nothing: `python3 nosync.py PROGRAM [ARGUMENT...]`.

A scratch image need not survive a power cut, and dpkg syncs its data base after every package. A seccomp filter
answers 0 in the kernel's place for the program and all that it starts, native or emulated (systemd-nspawn does the
same with `--suppress-sync`). Where the kernel refuses the filter the program runs all the same, and slower.
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


if __name__ == "__main__":
    install()
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 -- becoming that program is what this one is for
