"""A shutdown that no dead NFS server holds up.

A process with unsaved data on a hard mount cannot end, not even by SIGKILL, until its server answers; a
session that does not end costs 90 s before systemd kills it and 90 s after. So a service of ours is stopped
together with the sessions, watches the shares until they are unmounted, and has the kernel break off all
calls to a server that is gone: `/sys/fs/nfs/DEVICE/shutdown` from Linux 6.5 on, before that `umount --force`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.components.unit_text import literal
from piimage.delta import File

if TYPE_CHECKING:
    from collections.abc import Iterable

    from piimage.delta import Entry

UNIT = "piimage-release-shares.service"
_SCRIPT = "/usr/lib/piimage/release-shares"

#: Of a line of /proc/self/mountinfo the third field is the device, the fifth the mount point (proc(5)); of a
#: line `xprt: tcp` in /proc/self/mountstats the ninth counts the answers (net/sunrpc/xprtsock.c). A killed
#: `stat` ends with status 137 and means no answer; with any other it had one, if only an error.
_SHELL = """\
#!/bin/sh
# At shutdown, for each share given: while it is mounted, see that its server answers, and let go of it when
# not. What is under way then ends with an error. A slow server is not a dead one: any answer counts.
set -u

[ "$(systemctl is-system-running)" = stopping ] || exit 0

device_of() {
    while read -r _ _ device _ place rest; do
        case "$place $rest" in "$1 "*" - nfs4 "*) echo "$device" && return 0 ;; esac
    done </proc/self/mountinfo
    return 1
}

answers_to() {
    here=
    while read -r key kind _ _ place _ _ _ count _; do
        case "$key $kind" in
        "device "*) here=$place ;;
        "xprt: tcp") [ "$here" = "$1" ] && echo "$count" ;;
        esac
    done </proc/self/mountstats
}

let_go() {
    echo "the server of $1 does not answer: letting go of it"
    if [ -e "/sys/fs/nfs/$2/shutdown" ]; then
        echo 1 >"/sys/fs/nfs/$2/shutdown"
        return
    fi
    # This ends only the calls under way, so it is repeated.
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        umount -icf "$1" 2>/dev/null && return
        sleep 2
    done
    umount -icl "$1"
}

watch_share() {
    while device=$(device_of "$1"); do
        before=$(answers_to "$1")
        timeout -s KILL 20 stat -f "$1" >/dev/null 2>&1
        if [ $? -eq 137 ] && [ "$(answers_to "$1")" = "$before" ]; then
            let_go "$1" "$device"
            return
        fi
        sleep 1
    done
}

for share; do
    watch_share "$share" &
done
wait
"""


def entries(paths: Iterable[str]) -> dict[str, Entry]:
    """The script and the service for the shares mounted at `paths`."""
    return {
        _SCRIPT: File(_SHELL.encode(), mode=0o755),
        f"/etc/systemd/system/{UNIT}": File(service_text(paths).encode()),
    }


def service_text(paths: Iterable[str]) -> str:
    """Ordered against nothing but the network: stopped at once, beside the sessions that may hang."""
    return f"""\
[Unit]
Description=Let go of shares at shutdown when their server is gone
After=network.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStop={_SCRIPT} {literal(" ".join(paths))}
TimeoutStopSec=100

[Install]
WantedBy=multi-user.target
"""
