"""Time: the head follows the world when it can, and all others follow the head.

Boards have no battery-backed clock. Three things keep the time from starting in 1970:
/usr/lib/clock-epoch, to whose mtime systemd's first process advances the clock; chronyd's `-s`,
which restores the last known time from its drift file; and `makestep 1 -1`, which lets chronyd step
whenever it is more than a second off. `rtconutc` because `-s` would take a clock chip, where a board
has one, for local time.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING

from piimage.components.contribution import Check, Contribution
from piimage.components.textfile import add_options, comment_out, rewritten, with_newline
from piimage.delta import Absent, Delta, File
from piimage.distros.family import family
from piimage.errors import UnsupportedError

if TYPE_CHECKING:
    from piimage.cluster import Cluster, Role
    from piimage.delta import Entry
    from piimage.facts import Facts

#: Debian reads conf.d before its own `pool` and `makestep`, so what is ours would be overridden.
_OURS = ("pool", "server", "peer", "makestep", "local", "allow")
_DROP_IN = "10-piimage.conf"
#: Versions that know no `confdir` (chrony's news of 4.0), as buster's.
_OLD = re.compile(r"[123]\.")
#: chronyd's options: where, and in which variable (packages chrony of Debian and of Fedora).
_DEFAULTS = (("/etc/default/chrony", "DAEMON_OPTS"), ("/etc/sysconfig/chronyd", "OPTIONS"))
CLOCK_EPOCH = "/usr/lib/clock-epoch"


def packages(_cluster: Cluster, _role: Role) -> tuple[str, ...]:
    """chrony, for bases that keep the time by other means."""
    return ("time",)


def image(cluster: Cluster, role: Role, facts: Facts) -> Contribution:
    """Chrony's settings and the clock seed; raises `UnsupportedError` for a base without chrony."""
    distro = family(facts)
    stock = facts.text(distro.chrony_conf)
    if distro.time_unit not in facts.units or not stock:
        raise UnsupportedError("the base has no chrony", hint="use a base with the package chrony")
    text, ours = with_newline(comment_out(stock, _OURS)), config_text(cluster, role)
    drop_in = {f"{distro.chrony_confdir}/{_DROP_IN}": File(ours.encode())}
    if _OLD.match(facts.packages.get("chrony", "")):
        text, drop_in = text + ours, {}
    elif not re.search(rf"^confdir .*{re.escape(distro.chrony_confdir)}\b", text, re.MULTILINE):
        text += f"confdir {distro.chrony_confdir}\n"
    entries: dict[str, Entry] = {
        distro.chrony_conf: rewritten(facts, distro.chrony_conf, text),
        **drop_in,
    }
    for path, name in _DEFAULTS:
        if facts.has(path):
            entries[path] = rewritten(facts, path, add_options(facts.text(path), name, "-s"))
    # Ubuntu's own servers since 25.10; cluster.yaml says which ones count.
    folder = distro.chrony_conf.rpartition("/")[0] + "/sources.d/"
    entries |= {
        path: Absent()
        for path in facts.files
        if path.startswith(folder) and path.endswith(".sources")
    }
    if facts.made is not None:
        entries[CLOCK_EPOCH] = File(b"", mtime=facts.made)
    timesyncd = "systemd-timesyncd.service"
    return Contribution(
        delta=Delta.of("time", entries),
        enable=(distro.time_unit,),
        disable=(timesyncd,) if timesyncd in facts.units else (),
        checks=(
            Check(
                name="chrony",
                argv=("systemctl", "is-active", distro.time_unit),
                expect="^active$",
            ),
        ),
    )


def config_text(cluster: Cluster, role: Role) -> str:
    """chrony.conf(5) lines of a role; a node without Wi-Fi has no way out but to the head."""
    world = [_source(server) for server in cluster.ntp_servers]
    if role.head:
        # Stratum 10: when the head has no source, the workers still agree with it.
        lines = [*world, f"allow {cluster.subnet}", "local stratum 10"]
    else:
        lines = [f"server {cluster.head.address.ip} iburst prefer"]
        lines += world if role.wifi and cluster.wifi is not None else []
    return "".join(f"{line}\n" for line in [*lines, "makestep 1 -1", "rtconutc"])


def _source(server: str) -> str:
    """A name stands for all its addresses (`pool`), an address for one server."""
    try:
        ip_address(server)
    except ValueError:
        return f"pool {server} iburst"
    return f"server {server} iburst"
