"""Slot padding, taken off at first boot: the files look as if they had been written by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.components.contribution import Contribution
from piimage.delta import Delta, File

if TYPE_CHECKING:
    from collections.abc import Iterable

    from piimage.delta import Entry

_SCRIPT = "/usr/lib/piimage/trim-slots"
_LIST = "/usr/lib/piimage/slots"
_DONE = "/var/lib/piimage/trimmed"
UNIT = "piimage-trim.service"

#: A file is replaced by a finished, synced copy, so losing power in the middle loses nothing; the
#: mark comes last, so an interrupted run is repeated. One sync serves all: a card takes its time for each.
_SHELL = f"""\
#!/bin/sh
# Takes the padding newlines off the files that were stamped into this image. Runs once.
set -eu
umask 077
while IFS= read -r path; do
    [ -f "$path" ] || continue
    copy="$path.piimage-trim"
    cp -a -- "$path" "$copy" # with its SELinux label, where there are any
    # A command substitution drops every newline at the end; printf puts one back.
    content=$(cat -- "$path")
    printf '%s\\n' "$content" >"$copy"
done <{_LIST}
sync
while IFS= read -r path; do
    [ ! -f "$path" ] || mv -f -- "$path.piimage-trim" "$path"
done <{_LIST}
mkdir -p {_DONE.rsplit("/", 1)[0]}
: >{_DONE}
"""

_SERVICE = f"""\
[Unit]
Description=Take the padding off stamped files
DefaultDependencies=no
ConditionPathExists=!{_DONE}
RequiresMountsFor=/etc /home /usr /var/lib
After=systemd-remount-fs.service
Before=cloud-init-main.service cloud-init-local.service ssh.service sshd.service sysinit.target
Conflicts=shutdown.target
Before=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh {_SCRIPT}

[Install]
WantedBy=sysinit.target
"""


def image(paths: Iterable[str]) -> Contribution:
    """The unit, its script and the list of the variant's slots."""
    entries: dict[str, Entry] = {
        _SCRIPT: File(_SHELL.encode(), mode=0o755),
        _LIST: File("".join(f"{path}\n" for path in sorted(paths)).encode()),
        f"/etc/systemd/system/{UNIT}": File(_SERVICE.encode()),
    }
    return Contribution(delta=Delta.of("trim", entries), enable=(UNIT,))
