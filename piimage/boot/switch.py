"""An Ethernet switch on unix sockets, run as a process of its own: `python3 switch.py DIRECTORY NAME...`.

Every machine is a QEMU whose `dgram` netdev is bound to `DIRECTORY/NAME` and sends to `DIRECTORY/switch`. The
switch learns who sits where and forgets nothing: a frame for a machine that is off goes nowhere, as on a real
wire. (A hub, or a switch that floods what it does not know, would show it to QEMU's user network behind the
gateway; that looks at no MAC address, and refuses the connection in the dead machine's name.) It ends when its
standard input does.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
import sys

#: The name of the switch's own socket.
NAME = "switch"
#: The file descriptor of standard input.
_INPUT = 0
#: More than any frame: netdevs without checksum offload carry at most the MTU and a header.
_FRAME = 65536
#: Group addresses, broadcast among them, have this bit in their first byte (IEEE 802).
_GROUP = 1
#: How long a full machine is waited for, as a struct timeval of 0.1 s: its queue is short (unix(7),
#: max_dgram_qlen), and a lost frame costs TCP more.
_PATIENCE = struct.pack("ll", 0, 100_000)


def serve(directory: str, names: list[str]) -> None:
    """Carry frames until standard input ends."""
    ports = [f"{directory}/{name}" for name in names]
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire,
        selectors.DefaultSelector() as selector,
    ):
        wire.bind(f"{directory}/{NAME}")
        # Not Python's own timeout: with that, receiving cannot be told to wait for nothing.
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _PATIENCE)
        selector.register(wire, selectors.EVENT_READ)
        selector.register(_INPUT, selectors.EVENT_READ)
        table: dict[bytes, str] = {}
        while True:
            ready = [key.fileobj for key, _ in selector.select()]
            if _INPUT in ready and not os.read(_INPUT, _FRAME):
                return
            if wire in ready:
                drain(wire, ports, table)


def drain(wire: socket.socket, ports: list[str], table: dict[bytes, str]) -> None:
    """Carry all frames that wait; `table` is who was seen where."""
    while True:
        try:
            frame, port = wire.recvfrom(_FRAME, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        table[frame[6:12]] = port
        if frame[0] & _GROUP:
            for other in ports:
                if other != port:  # a machine that takes nothing must not hold up the rest
                    with contextlib.suppress(OSError):
                        wire.sendto(frame, socket.MSG_DONTWAIT, other)
        elif frame[:6] in table:
            with contextlib.suppress(OSError):
                wire.sendto(frame, table[frame[:6]])


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2:])
