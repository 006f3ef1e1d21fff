"""QEMU's arguments: whole commands as goldens, addresses that fit, nothing added in silence."""

from __future__ import annotations

import shlex
from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

import phony_facts
import pytest
from hypothesis import given
from hypothesis import strategies as st

from piimage.boot.machine import (
    Machine,
    Parts,
    additions,
    argv,
    overlay_size,
)
from piimage.boot.memory import Share
from piimage.boot.wiring import local_mac, wire
from piimage.emulator import Accel
from piimage.errors import PiimageError

TCG, KVM = Accel("tcg", "cortex-a72"), Accel("kvm", "host")
PARTS = Parts(
    kernel=Path("/s/vmlinuz"),
    initrd=Path("/s/initrd"),
    dtb=None,
    cmdline="root=LABEL=R console=ttyAMA0",
    disk=Path("/s/card.qcow2"),
    console=Path("/s/a,b/console.log"),
)


def node3(**changes):
    cluster = phony_facts.cluster()
    return cluster, replace(cluster.nodes[1], **changes)


def test_virt_is_this_command():
    cluster, node = node3()
    net = wire(cluster, node, 2222)

    words = argv(Machine.VIRT, PARTS, TCG, Share(), net)

    assert shlex.join(words) == (
        "qemu-system-aarch64 -nodefaults -no-user-config -display none -no-reboot -qmp stdio -name piimage "
        "-M virt -cpu cortex-a72 -smp 2 -m 1024 -accel tcg,thread=multi,tb-size=1024 "
        "-drive if=none,id=card,format=qcow2,cache=unsafe,file=/s/card.qcow2 "
        "-device virtio-blk-pci,drive=card -device virtio-rng-pci "
        f"-netdev user,id=wire,net={cluster.subnet},host={net.host},dns={net.resolver},"
        f"dhcpstart={net.lease},restrict=on,hostfwd=tcp:127.0.0.1:2222-{node.address.ip}:22 "
        f"-device virtio-net-pci,netdev=wire,mac={net.mac},romfile= "
        f"-netdev user,id=other,restrict=on -device virtio-net-pci,netdev=other,mac={net.other_mac},romfile= "
        "-chardev file,id=console,path=/s/a,,b/console.log -serial chardev:console "
        "-kernel /s/vmlinuz -append 'root=LABEL=R console=ttyAMA0' -initrd /s/initrd"
    )


@pytest.mark.parametrize(("slots", "cpus"), [(1, 2), (2, 2), (3, 4), (4, 4), (64, 4)])
def test_virt_has_a_processor_for_each_mpi_rank_up_to_a_boards_four(slots, cpus):
    words = argv(Machine.VIRT, PARTS, TCG, Share(), None, slots=slots)

    assert words[words.index("-smp") + 1] == str(cpus)


def test_kvm_takes_the_hosts_processor_and_interrupts():
    words = shlex.join(argv(Machine.VIRT, PARTS, KVM, Share(512), None))

    assert "-M virt,gic-version=host -cpu host" in words
    assert "-accel kvm" in words
    assert "netdev" not in words


def test_raspi3b_is_this_command():
    parts = replace(PARTS, dtb=Path("/s/pi.dtb"), initrd=None)

    words = argv(Machine.RASPI3B, parts, TCG, Share(4096), None)

    assert shlex.join(words) == (
        "qemu-system-aarch64 -nodefaults -no-user-config -display none -no-reboot -qmp stdio -name piimage "
        "-M raspi3b -smp 4 -m 1024 -accel tcg,thread=multi "
        "-drive if=sd,format=qcow2,cache=unsafe,file=/s/card.qcow2 -dtb /s/pi.dtb "
        "-serial null -chardev file,id=console,path=/s/a,,b/console.log -serial chardev:console "
        "-kernel /s/vmlinuz -append 'root=LABEL=R console=ttyAMA0'"
    )


@given(st.integers(min_value=8, max_value=30), st.data())
def test_the_emulated_network_never_has_the_nodes_address(prefix, data):
    net = IPv4Network((0x0A000000, prefix))
    offset = data.draw(st.integers(min_value=1, max_value=min(net.num_addresses - 2, 4000)))
    cluster, node = node3(address=IPv4Interface((int(net.network_address) + offset, prefix)))
    cluster = replace(cluster, subnet=net, nodes=(cluster.nodes[0], node))

    found = wire(cluster, node, 1)

    assert len({found.node, found.host, found.resolver, found.lease}) == 4
    assert found.host in net, "the node answers on the wire without a route"
    assert found.resolver in found.net
    assert found.lease in found.net


def test_the_emulated_network_keeps_off_all_nodes_where_it_can():
    cluster, node = node3()
    found = wire(cluster, node, 1)

    assert not {found.host, found.resolver, found.lease} & set(cluster.addresses.values())


def test_a_board_keeps_its_own_mac():
    cluster, node = node3(mac="b8:27:eb:00:00:03")

    assert wire(cluster, node, 1).mac == "b8:27:eb:00:00:03"


@given(st.text(), st.text())
def test_made_up_macs_are_local_unicast_and_stable(one, two):
    mac = local_mac(one, two)

    assert mac == local_mac(one, two)
    assert mac.startswith("02:")
    assert len(bytes.fromhex(mac.replace(":", ""))) == 6


@pytest.mark.parametrize(
    ("machine", "cmdline", "accel", "expected"),
    [
        (Machine.VIRT, "console=tty0 net.ifnames=0", KVM, ("console=ttyAMA0",)),
        (Machine.VIRT, "a net.ifnames=0 console=ttyAMA0", KVM, ()),
        (Machine.VIRT, "a console=ttyAMA0", KVM, ("net.ifnames=0",)),
        (Machine.RASPI3B, "console=tty0", KVM, ("console=ttyS1,115200",)),
        (Machine.RASPI3B, "a console=ttyS1,115200 b", KVM, ()),
    ],
)
def test_additions_are_declared(machine, cmdline, accel, expected):
    assert additions(machine, cmdline, accel) == expected


def test_an_emulated_board_gets_more_time_for_its_devices():
    assert "systemd.default_device_timeout_sec=600" in additions(Machine.VIRT, "a", TCG)


def test_only_an_emulated_processor_goes_unguarded():
    guards = {"mitigations=off", "kpti=off", "nokaslr", "init_on_alloc=0"}

    assert guards <= set(additions(Machine.RASPI3B, "a", TCG))
    assert not guards & set(additions(Machine.VIRT, "a", KVM))


def test_the_card_is_larger_than_the_image():
    gib = 1 << 30

    assert overlay_size(Machine.VIRT, 3 * gib // 2, None) == 5 * gib // 2
    assert overlay_size(Machine.RASPI3B, 3 * gib // 2, None) == 4 * gib
    assert overlay_size(Machine.RASPI3B, gib, 4 * gib) == 4 * gib
    assert overlay_size(Machine.VIRT, 1000, 1001) == 1024
    with pytest.raises(PiimageError, match="smaller than the image"):
        overlay_size(Machine.VIRT, gib, gib - 1)
