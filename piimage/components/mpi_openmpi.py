"""Open MPI: settings in its own files, appended to what the package has there.

Facts: the parameter names of 4.1 are those that `ompi_info --all` of Debian 12's 4.1.4 prints; 5.0 starts
processes by PRRTE, which reads prte-mca-params.conf (Debian 13's 5.0.7, tried on three nodes).
`btl_tcp_if_include` takes a subnet, so one line fits nodes whose ports are called eth0 and end0; it must
be the interface's own prefix (Open MPI's documentation of the TCP BTL).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from piimage.components import slots
from piimage.components.contribution import Contribution
from piimage.components.textfile import comment_out, rewritten, with_newline
from piimage.delta import Delta, File
from piimage.errors import UnsupportedError

if TYPE_CHECKING:
    from piimage.cluster import Cluster, Role
    from piimage.delta import Entry
    from piimage.facts import Facts

#: How `mpirun --version` begins.
SAYS = r"\(Open MPI\)"
_PACKAGES = ("openmpi-bin", "openmpi")
#: Debian's directory and Fedora's, where each architecture has its own.
_CONF = re.compile(r"/etc/openmpi(-\w+)?/openmpi-mca-params\.conf")
_PRRTE_SINCE = 5


def there(facts: Facts) -> bool:
    """Whether the base has it."""
    return any(name in facts.packages for name in _PACKAGES)


def version(facts: Facts) -> str:
    """The package's version, or an empty string."""
    return next((facts.packages[name] for name in _PACKAGES if name in facts.packages), "")


def image(cluster: Cluster, _role: Role, facts: Facts) -> Contribution:
    """The wired subnet and the hostfile; raises `UnsupportedError` for a base without its configuration."""
    conf = next((path for path in sorted(facts.files) if _CONF.fullmatch(path)), None)
    if conf is None:
        raise UnsupportedError(
            "the base's Open MPI has no openmpi-mca-params.conf in /etc/openmpi",
            hint="use the distribution's own package",
        )
    major = re.match(r"(?:\d+:)?(\d+)", version(facts))
    wire = str(cluster.subnet)
    lines = {"btl_tcp_if_include": wire}
    entries: dict[str, Entry] = {}
    if major and int(major[1]) >= _PRRTE_SINCE:
        prte = conf.replace("openmpi-mca-params", "prte-mca-params")
        start = {"prte_if_include": wire, "prte_default_hostfile": slots.HOSTFILE}
        if cluster.ssh.trust == "star":
            start["plm_ssh_no_tree_spawn"] = "1"
        entries[prte] = _with(facts, prte, start)
    else:
        lines |= {"oob_tcp_if_include": wire, "orte_default_hostfile": slots.HOSTFILE}
        if cluster.ssh.trust == "star":
            lines["plm_rsh_no_tree_spawn"] = "1"
    entries[conf] = _with(facts, conf, lines)
    return Contribution(delta=Delta.of("mpi", entries))


def _with(facts: Facts, path: str, lines: dict[str, str]) -> File:
    """The base's file with these settings in force: Debian's own ends without a newline."""
    text = with_newline(comment_out(facts.text(path), tuple(lines)))
    ours = "".join(f"{name} = {value}\n" for name, value in lines.items())
    return rewritten(facts, path, text + ours)


def hostfile(cluster: Cluster) -> str:
    """A line per node, in its syntax."""
    count = cluster.mpi.slots if cluster.mpi else 1
    return "".join(f"{node.name} slots={count}\n" for node in cluster.nodes)
