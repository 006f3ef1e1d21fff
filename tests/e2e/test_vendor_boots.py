"""Images laid out like the vendors', with a userland that runs: built, booted and asked from inside.

The first is part of `make test`; `make test-matrix` boots them all.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import vendors

if TYPE_CHECKING:
    from fixtures.bootable import Vendor

ALL = [
    pytest.param(name, marks=pytest.mark.matrix if n else ())
    for n, name in enumerate(vendors.VENDORS)
]
YAML = """\
version: 1
name: vendors
base: vendor
timezone: Europe/Rome
users:
  - {name: ada, uid: 1000, rename_from: auto, sudo: nopasswd, password: locked}
  - {name: ops, uid: 1001}
network:
  wired: {subnet: 10.77.0.0/16, first: 10.77.3.1}
  wifi: {ssid: "Lab 2", country: "NO", psk: "env:LAB_PSK"}
shares: [{path: /srv/cluster, server: head}]
overlays: [probe]
nodes: {count: 1, name: "n{n}", head: 0}
"""
#: What the vendor's image is asked beside the checks of every rehearsal: answers stand on the console.
PROBE = """\
[Unit]
Description=Answers for a test
After=multi-user.target cloud-final.service
[Service]
Type=oneshot
StandardOutput=tty
TTYPath=/dev/console
ExecStart=/bin/sh /usr/local/lib/probe
[Install]
WantedBy=multi-user.target
"""
QUESTIONS = """\
say() { echo "probe: $1=$(echo $2)"; }
[ ! -d /sys/fs/selinux ] || {
	say mode "$(getenforce)"
	places="/etc /home /root /usr/lib/piimage /usr/local /var/lib/cloud/seed /boot"
	say mislabelled "$(restorecon -R -n -v $places | grep -c '^Would')"
}
say wire "$(ls /sys/class/net | tr '\\n' ' ')"
say wizard "$(systemctl is-enabled initial-setup.service userconfig.service 2>&1 | sort -u)"
[ ! -e /etc/raspi-image-id ] || {
	say before "$(cat /boot/firmware/cmdline.txt)"
	DEBIAN_FRONTEND=noninteractive dpkg-reconfigure raspi-firmware
	say after "$(cat /boot/firmware/cmdline.txt)"
	say ports "$(ifquery --state)"
	say root "$(cat /root/.ssh/authorized_keys)"
}
say done yes
"""
#: Whose Wi-Fi meets its access point; the systemd of older ones starts none.
ON_AIR = ("debian-raspi-13",)

#: What Debian's policy denies Debian's own programs: who, whose, and of which name or path. All of it on an image that
#: piimage never touched too, but for that of nfsd, which starts where there is something to export.
DENIED_ANYWAY = {
    ("chronyd_t", "NetworkManager_runtime_t"): "chrony-dhcp",
    ("getty_t", "tmpfs_t"): "/",  # the directory that systemd mounts for its credentials
    ("nfsd_t", "sysctl_fs_t"): ".*",  # only the kernel's own /proc/sys/fs has this type
    ("rpcd_t", "nfsd_fs_t"): ".*",  # only the file system nfsd has it
    ("syslogd_t", "tmpfs_t"): "/",
    ("systemd_tmpfiles_t", "user_home_dir_t"): "root",
}
DENIAL = re.compile(
    r"avc: +denied (?:(?! (?:name|path)=).)*(?: (?:name|path)=\"?(?P<what>[^\"\s]*)\"? .*)?"
    r" scontext=\w+:\w+:(?P<who>\w+):\S+ tcontext=\w+:\w+:(?P<whose>\w+):.*"
)


def is_denied_anyway(denial: re.Match[str]) -> bool:
    """A record without name or path is known by who and whose alone."""
    known = DENIED_ANYWAY.get((denial["who"], denial["whose"]))
    return known is not None and (
        denial["what"] is None or bool(re.fullmatch(known, denial["what"]))
    )


@dataclass(frozen=True)
class Played:
    """A rehearsal's report, and the console."""

    vendor: Vendor
    status: int
    report: dict
    console: str

    @property
    def probed(self):
        return dict(re.findall(r"probe: (\w+)=(.*?)\s*$", self.console, re.MULTILINE))

    @property
    def denied(self):
        """What SELinux kept from whom, from the first moment to the last, but for what it always does."""
        found = DENIAL.finditer(self.console)
        return [match[0] for match in found if not is_denied_anyway(match)]

    @property
    def found(self):
        return {finding["name"]: finding["found"] for finding in self.report["findings"]}


def _probe(home):
    """The overlay that asks, beside the cluster's file, which names it."""
    units, programs = (
        home / "overlays/probe/rootfs" / place for place in ("etc/systemd/system", "usr/local/lib")
    )
    units.mkdir(parents=True)
    programs.mkdir(parents=True)
    (home / "overlays/probe/overlay.yaml").write_text(
        "description: answers\nenable: [probe.service]\n"
    )
    (units / "probe.service").write_text(PROBE)
    (programs / "probe").write_text(QUESTIONS)


@pytest.fixture(scope="module", params=ALL)
def played(request, default_base, piimage):
    """Node 0 over the vendor's image."""
    wanted = {"vendor": request.param}
    with (
        pytest.MonkeyPatch.context() as environment,
        vendors.imported(default_base, wanted, piimage) as there,
    ):
        environment.setitem(os.environ, "LAB_PSK", "0123456789abcdef" * 4)
        source = there.home / "cluster.yaml"
        source.write_text(YAML)
        _probe(there.home)
        done = piimage("build", source, "--node", "0", cache=there.cache)
        assert done.returncode == 0, done.stderr
        air = ("--access-point", "right") if request.param in ON_AIR else ()
        done = piimage("boot", source, "--node", "0", *air, "--json", cache=there.cache)
        console = there.home / "dist/vendors/rehearsal/n0/console.log"
        text = console.read_text(errors="replace")
        yield Played(there.vendors["vendor"], done.returncode, json.loads(done.stdout), text)


def test_the_node_comes_up_as_promised(played):
    report = played.report

    assert [f for f in report["findings"] if f["ok"] is not True] == [], played.console[-4000:]
    assert (played.status, report["ok"], report["error"]) == (0, True, None)
    assert {
        "login prompt", "cloud-init", "host name", "/etc/hosts", "machine id", "locale", "ssh", "user ada",
        "user ops", "sudo of ada", "wired address", "routes on the wire", "second NIC", "serves time", "target",
        "failed units", "system state", "root file system grown", "power off", "secrets that nobody can read",
        "plan: NFS server", "plan: NFS port", "plan: export of /srv/cluster",
    } <= played.found.keys()  # fmt: skip


def test_what_is_mounted_by_the_disks_signature_is_found_under_the_new_one(played):
    """The first boot of Raspberry Pi OS gives the disk another one; others mount by labels or UUIDs."""
    layout = played.vendor.card.layout
    mounted = set(re.findall(r"/dev/disk/by-partuuid/(\w+)-01", played.console))

    if layout.group or layout.root_label in ("writable", "root", "RASPIROOT"):
        assert mounted == set()
    else:
        assert len(mounted) == 1
        assert layout.disk_id not in mounted


def test_nobody_is_asked_and_the_wire_has_the_vendors_name(played):
    probed = played.probed

    assert probed["done"] == "yes"
    assert "enabled" not in probed["wizard"].split()
    if played.vendor.card.name.startswith("fedora"):
        assert "end0" in probed["wire"].split()
        assert "masked" in probed["wizard"].split()


def test_selinux_is_enforced_and_knows_every_file(played):
    """The guest's own restorecon finds nothing to change, and nothing is denied for want of a label."""
    probed = played.probed

    if played.vendor.policy is None:
        assert "mode" not in probed
        return
    assert (probed["mode"], probed["mislabelled"]) == ("Enforcing", "0")
    assert played.denied == []


def test_what_debians_images_do_by_themselves_leaves_the_node_as_it_is(played):
    """ifupdown has the wire, sysconf.txt has set nothing, and the real hook finds all that is on the command line."""
    probed = played.probed

    if not played.vendor.card.name.startswith("debian"):
        assert "after" not in probed
        return
    assert {"lo=lo", "eth0=eth0"} <= set(probed["ports"].split())
    assert probed["root"] == ""  # it was taken out, and cloud-init has made an empty one
    before, after = probed["before"].split(), probed["after"].split()
    assert {"cfg80211.ieee80211_regdom=NO", "root=LABEL=RASPIROOT"} <= set(after)
    # a board's serial port is not QEMU's
    assert set(before) - set(after) <= {"console=ttyS1,115200"}


def test_wifi_by_ifupdown_has_an_address_and_the_way_out(played):
    if played.vendor.card.name in ON_AIR:
        wanted = {"Wi-Fi association", "Wi-Fi country", "Wi-Fi address", "default route"}
        assert wanted <= played.found.keys()
