"""MPICH: Hydra finds its hosts through the environment, UCX its interface through a file made at boot.

Facts, of Debian 13's 4.2.1 on three nodes, two with eth0 and one with end0: on 64 bits it is built with
the device ch4:ucx; UCX takes names of interfaces and no subnet; it reads /etc/ucx/ucx.conf. Set in the
environment, a name holds on all nodes, since Hydra hands its own environment on: then the node whose
port has another name finds no transport. On 32 bits the device is ch3, where a rank gives others the
address of its own name (ch3/channels/nemesis/netmod/tcp, GetSockInterfaceAddr): /etc/hosts decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.components import slots
from piimage.components.contribution import Check, Contribution
from piimage.components.textfile import comment_out, rewritten, with_newline
from piimage.delta import Delta, File, Symlink

if TYPE_CHECKING:
    from piimage.cluster import Cluster, Role
    from piimage.delta import Entry
    from piimage.facts import Facts

#: What `mpirun --version` says before its version.
SAYS = r"HYDRA build details:\s+Version:"
UNIT = "piimage-wire.service"
_ENVIRONMENT = "/etc/environment"
_UCX = "/etc/ucx/ucx.conf"
_RUN = "/run/piimage"
_SCRIPT = "/usr/lib/piimage/wire"
_PACKAGE, _UCX_PACKAGE = "mpich", "libucx0"

#: The cable may be plugged in at any time; nothing waits for this but MPI.
_SHELL = f"""\
#!/bin/sh
# Tells UCX, which wants a name, the interface that has this node's address in {slots.HOSTS}.
set -eu
address=$(getent hosts "$(hostname)" | awk '{{ print $1; exit }}')
while :; do
    name=$(ip -4 -o address show | awk -v want="$address" '
        {{ split($4, own, "/"); if (own[1] == want) {{ print $2; exit }} }}')
    [ -z "$name" ] || break
    sleep 2
done
mkdir -p {_RUN}
printf 'UCX_NET_DEVICES=%s\\n' "$name" >{_RUN}/ucx.conf.new
mv -f {_RUN}/ucx.conf.new {_RUN}/ucx.conf
"""

_SERVICE = f"""\
[Unit]
Description=Tell UCX which interface is the wire
After=network.target

[Service]
Type=exec
ExecStart=/bin/sh {_SCRIPT}

[Install]
WantedBy=multi-user.target
"""


def there(facts: Facts) -> bool:
    """Whether the base has it."""
    return _PACKAGE in facts.packages


def version(facts: Facts) -> str:
    """The package's version, or an empty string."""
    return facts.packages.get(_PACKAGE, "")


def image(_cluster: Cluster, _role: Role, facts: Facts) -> Contribution:
    """Where Hydra's hosts are, and for a build on UCX the unit that finds the wire."""
    name = "HYDRA_HOST_FILE"
    text = with_newline(comment_out(facts.text(_ENVIRONMENT), (name,)))
    entries: dict[str, Entry] = {
        # pam_env reads it for every session, also that of `ssh node0 mpirun`.
        _ENVIRONMENT: rewritten(facts, _ENVIRONMENT, f"{text}{name}={slots.HOSTFILE}\n"),
    }
    if _UCX_PACKAGE not in facts.packages:
        return Contribution(delta=Delta.of("mpi", entries))
    entries |= {
        _SCRIPT: File(_SHELL.encode(), mode=0o755),
        f"/etc/systemd/system/{UNIT}": File(_SERVICE.encode()),
        _UCX: Symlink(f"{_RUN}/ucx.conf"),
    }
    check = Check(name="wire of UCX", argv=("cat", _UCX), expect=r"^UCX_NET_DEVICES=\S+$")
    return Contribution(delta=Delta.of("mpi", entries), enable=(UNIT,), checks=(check,))


def hostfile(cluster: Cluster) -> str:
    """A line per node, in its syntax."""
    count = cluster.mpi.slots if cluster.mpi else 1
    return "".join(f"{node.name}:{count}\n" for node in cluster.nodes)
