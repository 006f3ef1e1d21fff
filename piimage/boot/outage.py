"""A power cut: a share in use on every node that mounts it, then one node's machine killed."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from piimage.boot import guest
from piimage.boot.checks import Finding
from piimage.errors import RehearsalError

if TYPE_CHECKING:
    from piimage.boot.guest import Access
    from piimage.boot.qemu import Vm
    from piimage.cluster import Share

#: Seconds in which whoever uses the share runs into its server's absence before power buttons are pressed.
NOTICED = 15
#: Entering mounts it. What goes on using it afterwards stands in the share, and writes there if it may.
_USE = """\
set -e
cd "$1"
type=$(stat -f -c %T .)
[ "$type" = nfs ] || { echo "no NFS is mounted on $1, but $type"; exit 1; }
how='only read'
if touch ".in-use-$(hostname)" 2>/dev/null; then how='written to'; fi
nohup sh -c 'while :; do ls -l; date >"$1"; sync "$1"; sleep 1; done' sh ".in-use-$(hostname)" \\
    >/dev/null 2>&1 </dev/null &
echo "in use, $how"
"""


def use(way: Access, vm: Vm, share: Share, *, reach: float) -> Finding:
    """Put the share to use on this node until it is switched off."""
    name, expected = f"share {share.path}", "mounted and in use before the power cut"
    command = f"sh -s -- {shlex.quote(share.path)}"
    try:
        done = guest.call(way, command, vm, stdin=_USE.encode(), reach=reach, limit=reach)
    except RehearsalError as error:
        return Finding(name, False, expected, error.message)
    said = guest.last(done.stdout) or guest.last(done.stderr) or f"status {done.returncode}"
    return Finding(name, done.returncode == 0, expected, said)
