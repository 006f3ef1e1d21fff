"""What makes a card with Debian's own image for the Raspberry Pi boot half configured, each by its name."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace

import phony_facts as phony
import pytest
from fixtures import debian_raspi
from fixtures.card import text
from fixtures.facts_of import facts_of

from piimage.bake import packaging
from piimage.bake.lock import Layer, Package, Step
from piimage.cluster import Sudo
from piimage.components import firmware, network_ifupdown, tools
from piimage.delta import Absent, Slot
from piimage.disk.census import Seen
from piimage.distros.firmware_hook import as_on_the_board
from piimage.distros.packages import real_names
from piimage.errors import UnsupportedError
from piimage.plan import plan, recipe
from piimage.verify import rules_access, rules_boot, rules_mounts, rules_network, rules_seed
from piimage.verify.view import Place, View

BOOKWORM, TRIXIE = (
    debian_raspi.bookworm(),
    debian_raspi.trixie(debian_raspi.Choice(family=3, date="20260102")),
)
FACTS = {"12": facts_of(BOOKWORM), "13": facts_of(TRIXIE)}
STOCK = {
    "12": facts_of(debian_raspi.bookworm(debian_raspi.Choice(baked=False))),
    "13": facts_of(debian_raspi.trixie(debian_raspi.Choice(baked=False))),
}
BOTH = pytest.mark.parametrize("name", FACTS)
SYSTEM = "/etc/systemd/system"


def entries(name, **more):
    return variant(name, **more).delta.entries


def variant(name, facts=None, **more):
    made = phony.cluster(**more)
    return plan.plan_variant(made, made.nodes[0].role, facts or FACTS[name])


def stamp(name, number=0, facts=None, **more):
    made = phony.cluster(**more)
    node = made.nodes[number]
    planned = plan.plan_variant(made, node.role, facts or FACTS[name])
    secrets = phony.secrets(made, passwords={})
    return plan.plan_stamp(made, node, facts or FACTS[name], planned, "f" * 64, secrets)


@BOTH
def test_root_without_a_password_is_locked(name):
    assert FACTS[name].text("/etc/shadow").startswith("root::")

    assert entries(name)["/etc/shadow"].content.startswith(b"root:*:")


@BOTH
def test_nobody_else_is_there_so_the_first_user_is_made_and_may_use_sudo(name):
    found = entries(name)

    assert b"federico:x:1000:1000:" in found["/etc/passwd"].content
    assert found["/etc/sudoers.d/010_federico"].content.endswith(b"NOPASSWD: ALL\n")


@BOTH
def test_sudo_comes_from_the_archive_where_somebody_may_use_it(name):
    made = phony.cluster()
    nobody = replace(made, users=(phony.user(sudo=Sudo.NONE),))

    assert recipe.wanted_packages(made, phony.HEAD, STOCK[name])["sudo"] == "component `users`"
    assert "sudo" not in recipe.wanted_packages(nobody, phony.HEAD, STOCK[name])
    assert "sudo" not in recipe.wanted_packages(made, phony.HEAD, FACTS[name])


@BOTH
def test_what_waits_for_packages_is_told_before_they_are_there(name):
    made = phony.cluster()

    _, waiting = plan.plan_ahead(made, phony.HEAD, STOCK[name])

    assert waiting["users"] == "the base has no sudo"
    assert waiting["cloudinit"] == "the base has no cloud-init"
    assert "network" not in waiting


@BOTH
def test_settings_on_the_fat_do_not_win_over_name_and_keys(name):
    found = entries(name)

    assert found["/boot/firmware/sysconf.txt"] == Absent()
    assert found[f"{SYSTEM}/basic.target.requires/rpi-set-sysconf.service"] == Absent()
    preset = found[f"{SYSTEM}-preset/10-piimage.preset"].content
    assert b"disable rpi-set-sysconf.service\n" in preset


@BOTH
def test_the_first_boot_makes_no_host_keys_that_nobody_knows(name):
    path = f"{SYSTEM}/multi-user.target.requires/rpi-generate-ssh-host-keys.service"
    assert entries(name)[path] == Absent()


@BOTH
def test_the_first_boot_does_not_write_the_command_line_anew(name):
    path = f"{SYSTEM}/multi-user.target.requires/rpi-reconfigure-raspi-firmware.service"
    found = entries(name)

    assert found[path] == Absent()
    preset = found[f"{SYSTEM}-preset/10-piimage.preset"].content
    assert b"disable rpi-reconfigure-raspi-firmware.service\n" in preset


@BOTH
def test_the_next_kernel_finds_all_that_is_on_the_command_line_and_in_config_txt(name):
    head = replace(phony.HEAD, cmdline=("quiet",), config_txt=("dtparam=audio=off",))
    made = stamp(name, head=head)
    found = entries(name, head=head)

    ours = ["quiet", "cfg80211.ieee80211_regdom=IT"]
    line = found["/boot/firmware/cmdline.txt"].content.decode()
    assert sorted(line.split()[-2:]) == sorted(ours)
    assert sorted(made.slots["/etc/default/raspi-extra-cmdline"].decode().split()) == sorted(ours)
    for path in ("/boot/firmware/config.txt", "/etc/default/raspi-firmware-custom"):
        assert found[path].content.endswith(b"[all]\ndtparam=audio=off\n")


def test_a_token_of_one_node_survives_the_next_kernel():
    made = phony.cluster()
    node = replace(made.nodes[1], cmdline=("maxcpus=2",))
    made = replace(made, nodes=(made.nodes[0], node, *made.nodes[2:]))
    facts = FACTS["12"]
    planned = plan.plan_variant(made, node.role, facts)

    found = plan.plan_stamp(made, node, facts, planned, "f" * 64, phony.secrets(made))

    assert found.slots["/etc/default/raspi-extra-cmdline"] == b"maxcpus=2\n"
    assert found.firmware["cmdline.txt"].decode().split()[-1] == "maxcpus=2"


def test_what_would_override_the_seed_after_the_next_kernel_goes_too():
    extra = {"/etc/default/raspi-extra-cmdline": text("ds=nocloud;i=one quiet\n")}
    facts = facts_of(replace(BOOKWORM, root={**BOOKWORM.root, **extra}))

    found = stamp("12", facts=facts).slots["/etc/default/raspi-extra-cmdline"]

    assert found == b"quiet cfg80211.ieee80211_regdom=IT\n"


def layer(*names):
    packages = tuple(
        Package(
            name=n, version="1", architecture="arm64", sha256="a" * 64, size=1, installed=1, file=f"{n}.deb"
        )
        for n in names
    )  # fmt: skip
    return Layer(
        base="b",
        below="x",
        roles=(),
        wanted=names,
        packages=packages,
        steps=(Step(action="unpack", names=names),),
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("12", {"CONSOLES": "tty0 ttyS1,115200", "CMA": "0"}),
        ("13", {"CONSOLES": "tty0 ttyS1,115200"}),
    ],
)
def test_a_bake_tells_the_firmwares_hook_what_it_would_look_for_on_the_board(name, expected):
    """On this machine it would find no serial port and no Pi 4, and a Pi 4 does not start with `cma`."""
    assert as_on_the_board(FACTS[name]) == expected
    script = packaging.script(layer("chrony"), FACTS[name]).decode()
    assert f'CONSOLES="{expected["CONSOLES"]}"' in script
    assert script.index("CONSOLES=") < script.index("--unpack") < script.index("cp -a $board")


def test_the_hook_has_its_settings_again_after_the_bake(tmp_path):
    """The lines around the calls of dpkg, run: told while they run, and then as it was."""
    script = packaging.script(layer("chrony"), FACTS["12"]).decode()
    lines = re.search(r"^board=.*?^printf [^\n]*\n", script, re.MULTILINE | re.DOTALL)[0]
    after = re.search(r"^rm -f /etc/default[^\n]*\n", script, re.MULTILINE)[0]
    defaults = tmp_path / "raspi-firmware"
    defaults.write_text("ROOTPART=LABEL=RASPIROOT\n")
    shell = f"set -eu\n{lines}. {defaults}; echo $CONSOLES/$CMA/$ROOTPART\n{after}".replace(
        "/etc/default/raspi-firmware", str(defaults)
    ).replace("/run/piimage/board", str(tmp_path / "board"))

    told = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True).stdout

    assert told == "tty0 ttyS1,115200/0/LABEL=RASPIROOT\n"
    assert defaults.read_text() == "ROOTPART=LABEL=RASPIROOT\n"


def test_a_base_that_says_it_itself_is_told_nothing():
    said = text('ROOTPART=LABEL=RASPIROOT\nCONSOLES="tty0 ttyS1,115200"\n')
    card = replace(TRIXIE, root={**TRIXIE.root, "/etc/default/raspi-firmware": said})

    assert as_on_the_board(facts_of(card)) == {}
    assert b"board=" not in packaging.script(layer("chrony"), facts_of(card))
    assert firmware.regenerates(facts_of(card))


@BOTH
def test_the_host_name_with_an_underscore_goes(name):
    assert "_" in FACTS[name].text("/etc/hostname")

    assert entries(name)["/etc/hostname"].content == b"localhost\n"
    assert b"hostname: node0\n" in stamp(name).slots["/var/lib/cloud/seed/nocloud/user-data"]


@BOTH
def test_the_root_grows_though_its_initramfs_is_made_anew(name):
    """By cloud-init, whose helper is asked for over every base."""
    wanted = recipe.wanted_packages(phony.cluster(), phony.HEAD, STOCK[name])

    assert "growpart" in tools.packages(phony.cluster(), phony.HEAD)
    assert {"cloud-guest-utils", "cloud-init"} <= set(real_names(wanted, STOCK[name]))


@BOTH
def test_the_wire_is_told_once(name):
    found = entries(name)

    assert found["/etc/network/interfaces.d/eth0"] == Absent()
    assert "/etc/network/interfaces" not in found
    assert found[network_ifupdown.OURS] == Slot(4096, mode=0o644)
    settings = [e.content for p, e in found.items() if p.startswith("/etc/cloud/cloud.cfg.d/")]
    assert b"network: {config: disabled}\n" in b"".join(settings)


@BOTH
def test_no_port_is_waited_for_and_the_wire_has_no_way_out(name):
    for number in (0, 1):
        said = stamp(name, number).slots[network_ifupdown.OURS].decode()

        assert f"iface eth0 inet static\n\taddress 10.1.10.24{number}/24\n" in said
        assert not re.search(r"^\s*(auto|gateway|dns-)", said, re.MULTILINE)
        assert "accept_ra" in said
        assert ("wlan0" in said) == (number == 0)


@BOTH
def test_the_wifi_key_is_hashed_and_in_a_file_of_root_alone(name):
    made = stamp(name)
    key = "/etc/wpa_supplicant/wpa_supplicant.conf"

    assert f"\tpsk={phony.PSK}\n" in made.slots[key].decode()
    assert variant(name).slots[key] == Slot(4096, mode=0o600)
    assert [p for p, content in made.slots.items() if phony.PSK.encode() in content] == [key]


@pytest.mark.parametrize(("name", "client"), [("12", "isc-dhcp-client"), ("13", "dhcpcd-base")])
def test_the_program_that_asks_for_an_address_and_writes_resolv_conf_is_there(name, client):
    packages = {p: v for p, v in STOCK[name].packages.items() if p != client}
    without = replace(STOCK[name], packages=packages)
    full = replace(FACTS[name], packages={"wpasupplicant": "1"})

    wanted = recipe.wanted_packages(phony.cluster(), phony.HEAD, without)

    assert client in real_names(wanted, without)
    assert "dhcp-client" not in recipe.wanted_packages(phony.cluster(), phony.HEAD, STOCK[name])
    assert "dhcp-client" not in recipe.wanted_packages(phony.cluster(), phony.WORKER, without)
    with pytest.raises(UnsupportedError, match="the base has no isc-dhcp-client, which Wi-Fi"):
        variant(name, facts=full)


@BOTH
def test_a_missing_resolv_conf_is_made_where_the_wire_has_a_way_out(name):
    more = {"wifi": None, **phony.OUTWARD}

    made = entries(name, **more)["/etc/resolv.conf"]

    assert made.content == b"nameserver 10.1.10.1\nnameserver 9.9.9.9\n"
    said = stamp(name, **more).slots[network_ifupdown.OURS].decode()
    assert said.count("\tgateway 10.1.10.1\n\tdns-nameservers 10.1.10.1 9.9.9.9\n") == 2
    assert "/etc/resolv.conf" not in entries(name)


def test_a_port_by_its_mac_is_refused_before_anything_is_made():
    made = phony.cluster()
    nodes = (replace(made.nodes[0], mac="dc:a6:32:00:00:01"), *made.nodes[1:])

    with pytest.raises(UnsupportedError, match="`node0` names its wired port by `mac`"):
        network_ifupdown.image(replace(made, nodes=nodes), phony.HEAD, FACTS["12"])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("auto eth0\niface eth0 inet dhcp\niface eth0 inet6 auto\n", ""),
        ("auto lo eth0\niface lo inet loopback\n", "auto lo\niface lo inet loopback\n"),
        ("iface eth1 inet dhcp\n\tup true\n", "iface eth1 inet dhcp\n\tup true\n"),
        ("iface eth0 inet static\n\taddress 1.2.3.4/8\n# said\nauto lo\n", "# said\nauto lo\n"),
        ("auto \\\n eth0 \\\n usb0\niface usb0 inet dhcp\n", "auto usb0\niface usb0 inet dhcp\n"),
        ("allow-hotplug /eth*=lan\niface lan inet dhcp\n", "iface lan inet dhcp\n"),
        ("mapping eth* wlan0\n\tscript x\n\tmap y\nauto lo\n", "auto lo\n"),
        ("source interfaces.d/eth0\n", "source interfaces.d/eth0\n"),
        ("# auto eth0\n", "# auto eth0\n"),
        ("iface eth0.5 inet manual", "iface eth0.5 inet manual"),
        ("", ""),
    ],
)
def test_what_files_say_of_our_ports_is_taken_out_and_nothing_else(before, after):
    assert network_ifupdown.without(before, ("eth0", "end0", "wlan0")) == after


def test_our_file_is_read_where_the_bases_own_reads_none():
    odd = text("auto lo usb0\niface lo inet loopback\niface usb0 inet dhcp\niface eth0 inet dhcp\n")
    card = replace(BOOKWORM, root={**BOOKWORM.root, "/etc/network/interfaces": odd})

    found = variant("12", facts=facts_of(card)).delta.entries["/etc/network/interfaces"]

    assert found.content.decode() == (
        "auto lo usb0\niface lo inet loopback\niface usb0 inet dhcp\nsource /etc/network/interfaces.d/*\n"
    )


def test_a_file_of_other_ports_too_keeps_them():
    root = {
        **BOOKWORM.root,
        "/etc/network/interfaces.d/50-cloud-init": text(
            "auto eth0\niface eth0 inet dhcp\nauto usb0\niface usb0 inet dhcp\n"
        ),
    }
    card = replace(BOOKWORM, root=root)

    found = variant("12", facts=facts_of(card)).delta.entries

    kept = found["/etc/network/interfaces.d/50-cloud-init"].content
    assert kept == b"auto usb0\niface usb0 inet dhcp\n"


def told(card, **files):
    """What the rules say of a card as it is, as `RULE path`; a path of the root or of the FAT each."""
    root = {p: n for p, n in {**card.root, **files}.items() if n is not None}
    facts = facts_of(card)
    kinds = {bytes: "file", str: "link", type(None): "dir"}
    seen = {
        path: Seen(
            kind=kinds[type(n.data)],
            mode=n.mode,
            uid=n.uid,
            gid=n.gid,
            size=len(n.data or ""),
            target=n.data if isinstance(n.data, str) else "",
        )
        for path, n in root.items()
    }
    seen |= dict.fromkeys(("/", "/usr", "/usr/bin"), Seen(kind="dir", mode=0o755))

    def read(path):
        if path.startswith("/boot/firmware/"):
            return card.boot.get(path.removeprefix("/boot/firmware/"))
        data = root[path].data if path in root else None
        return data if isinstance(data, bytes) else None

    view = View(
        table=facts.table,
        place=Place(root=2, firmware=1, mountpoint="/boot/firmware"),
        boot_sector="",
        root=seen,
        firmware={f"/{name}": Seen(kind="file", mode=0o755) for name in card.boot},
        reader=read,
    )
    rooms = (rules_boot, rules_mounts, rules_access, rules_seed, rules_network)
    rules = [rule for room in rooms for rule in room.RULES]
    return {f"{f.rule} {f.path}" for rule in rules for f in rule(view)}


def test_every_trap_of_the_image_as_it_is_published_has_its_rule():
    required = f"{SYSTEM}/multi-user.target.requires"

    assert {
        "PI206 /usr/bin/growpart",
        "PI214 /boot/firmware/sysconf.txt",
        f"PI214 {SYSTEM}/basic.target.requires/rpi-set-sysconf.service",
        f"PI214 {required}/rpi-generate-ssh-host-keys.service",
        f"PI214 {required}/rpi-reconfigure-raspi-firmware.service",
        "PI220 /etc/shadow",
    } <= told(debian_raspi.bookworm(debian_raspi.Choice(baked=False)))


SUPPLICANT = "/etc/wpa_supplicant/wpa_supplicant.conf"
REGDOM = " cfg80211.ieee80211_regdom=IT"
EXTRA, DEFAULTS = "/etc/default/raspi-extra-cmdline", "/etc/default/raspi-firmware"


@pytest.mark.parametrize(
    ("files", "rule"),
    [
        ({"/etc/network/interfaces.d/piimage": text(debian_raspi.WIRE)}, "PI212 /etc/network/interfaces.d/piimage"),
        ({"/etc/network/interfaces.d/wlan0": text("iface wlan0 inet dhcp\n wpa-psk x\n")},
         "PI212 /etc/network/interfaces.d/wlan0"),
        ({EXTRA: text("")}, f"PI213 {EXTRA}"),
        ({EXTRA: text(f"ds=nocloud{REGDOM}")}, f"PI209 {EXTRA}"),
        ({DEFAULTS: text("ROOTPART=LABEL=rootfs\n")}, f"PI202 {DEFAULTS}"),
        ({"/usr/bin/growpart": None}, "PI206 /usr/bin/growpart"),
    ],
)  # fmt: skip
def test_a_card_that_would_be_undone_is_found(files, rule):
    line = BOOKWORM.boot["cmdline.txt"].decode().strip() + REGDOM
    card = replace(BOOKWORM, boot={**BOOKWORM.boot, "cmdline.txt": f"{line}\n".encode()})
    good = {SUPPLICANT: text("network={\n}\n", 0o600), EXTRA: text(REGDOM)}

    assert rule not in told(card, **good)
    assert rule in told(card, **{**good, **files})


def test_the_address_of_a_port_is_known_to_verify():
    said = stamp("12", 1).slots[network_ifupdown.OURS]
    assert rules_network._ADDRESS.findall(said.decode()) == ["10.1.10.241"] * 2
