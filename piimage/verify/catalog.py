"""The rules: a stable name and one sentence each. `docs/rules/` has a page for every one."""

from __future__ import annotations

from dataclasses import dataclass

#: Rule -> what holds of an image that is as it should be.
RULES = {
    "PI001": "the partition table is whole and as it was built",
    "PI002": "the root file system is clean and can be read",
    "PI003": "the firmware partition is clean and can be read",
    "PI004": "the file has the checksum that its build noted",
    "PI005": "the card says which node of which build it is",
    "PI006": "the build is what cluster.yaml would make now",
    "PI101": "files hold what was promised",
    "PI102": "modes and owners are as promised",
    "PI103": "nothing is missing",
    "PI104": "nothing is there that nobody asked for",
    "PI105": "labels, capabilities and flags are as promised",
    "PI106": "links, directories and devices are as promised",
    "PI107": "the package database lists the packages of the build",
    "PI108": "units are enabled, disabled and masked as promised",
    "PI109": "accounts agree with each other",
    "PI201": "the kernel's command line is one line",
    "PI202": "the kernel finds its root file system",
    "PI203": "fstab mounts what is there",
    "PI204": "the firmware finds what config.txt names",
    "PI205": "no machine id is baked in",
    "PI206": "the root file system can grow at first boot",
    "PI207": "the host key is whole, private, and certified for this node",
    "PI208": "cloud-init can read its seed",
    "PI209": "cloud-init runs, and looks where the seed lies",
    "PI210": "nothing rewrites /etc/hosts",
    "PI211": "cloud-init makes no users",
    "PI212": "network profiles are private and can be read",
    "PI213": "Wi-Fi has a country and is not switched off",
    "PI214": "no wizard waits at first boot",
    "PI215": "the ssh server starts",
    "PI216": "sudo accepts its configuration",
    "PI217": "the ssh server accepts its configuration",
    "PI218": "homes and ssh keys are their owners' alone",
    "PI219": "no secret lies where others can read it",
    "PI220": "nobody gets in without a password or key",
    "PI221": "names and addresses of the node agree",
    "PI222": "the system's directories are merged into /usr",
    "PI223": "shares have their helper",
    "PI224": "the node boots into a target that is there",
    "PI225": "nothing is from the future",
    "PI226": "people get a shell",
    "PI301": "names are unique in the cluster",
    "PI302": "addresses are unique in the cluster",
    "PI303": "instance ids are unique in the cluster",
    "PI304": "host keys are unique in the cluster",
    "PI305": "disk ids are unique, or renewed at first boot",
    "PI306": "all nodes have the same roster",
}


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """A rule that is broken: at `path` of the image if it is about one, `message` one lower-case sentence."""

    rule: str
    path: str
    message: str
