"""The smoke test, on the head: it reaches all others. The program itself is in piimage/guest/smoke."""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.components.contribution import Check, Contribution
from piimage.components.shipped import shipped
from piimage.delta import Delta, File

if TYPE_CHECKING:
    from piimage.cluster import Cluster, Role
    from piimage.delta import Entry
    from piimage.facts import Facts

COMMAND = "/usr/local/bin/piimage-smoke"
DIRECTORY = "/usr/lib/piimage/smoke"
UNIT = "piimage-smoke.service"
REPORT = "/var/lib/piimage/smoke.json"
_COMMAND_NAME = "piimage-smoke"

#: Seconds that the first boot waits for all nodes, each of which grows its file system meanwhile.
_WAIT = 1800
#: The report is made as the user, who may not write to /var/lib, and put there by root. Failures of the cluster
#: are in it; the unit fails only when the test could not be made. `exec`: no boot waits for its end.
_SERVICE = """\
[Unit]
Description=Test the cluster once, when all nodes are there
ConditionPathExists=!{report}
After=network.target ssh.service sshd.service nfs-server.service

[Service]
Type=exec
User={user}
EnvironmentFile=-/etc/environment
RuntimeDirectory=piimage-smoke
ExecStart={command} --json --wait {wait} --output /run/piimage-smoke/smoke.json
ExecStopPost=+/bin/sh -c 'mkdir -p /var/lib/piimage && cp /run/piimage-smoke/smoke.json {report}.new && \
chmod 644 {report}.new && mv {report}.new {report}'
SuccessExitStatus=1
StandardOutput=null

[Install]
WantedBy=multi-user.target
"""


def image(cluster: Cluster, role: Role, _facts: Facts) -> Contribution:
    """The program, and its unit where the owner wants that. cloud-init has brought the Python for it."""
    if not role.head:
        return Contribution()
    entries: dict[str, Entry] = {
        (COMMAND if name == _COMMAND_NAME else f"{DIRECTORY}/{name}"): File(
            content, mode=0o755 if name == _COMMAND_NAME else 0o644
        )
        for name, content in shipped("smoke").items()
    }
    at_boot = cluster.mpi is not None and cluster.mpi.smoke_at_boot
    if at_boot:
        text = _SERVICE.format(
            report=REPORT, user=cluster.users[0].name, command=COMMAND, wait=_WAIT
        )
        entries[f"/etc/systemd/system/{UNIT}"] = File(text.encode())
    return Contribution(
        delta=Delta.of("smoke", entries),
        enable=(UNIT,) if at_boot else (),
        checks=(Check(name="smoke test", argv=(_COMMAND_NAME, "--help"), expect="usage"),),
    )
