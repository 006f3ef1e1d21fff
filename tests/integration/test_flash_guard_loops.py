"""Every refusal tried for real, as root, on loop devices: no appliance, some seconds in all."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from phony import make_phony

from piimage.cli.flash_list import lines
from piimage.errors import DeviceRefusedError, MissingToolError
from piimage.flash.candidates import candidates
from piimage.flash.card import read_label, read_unfinished
from piimage.flash.eject import eject
from piimage.flash.guard import admit, examine, unmount
from piimage.flash.hold import hold
from piimage.label import CardLabel

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from contextlib import AbstractContextManager

    from piimage.flash.device import Device
    from piimage.flash.hold import Held

MIB = 1 << 20
ROOT = Path(__file__).resolve().parents[2]
#: A loop is not removable: the one thing that stands against each of them.
LOOP = ("not-removable",)


def _run(*argv, **options):
    done = subprocess.run(
        [str(word) for word in argv], capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@contextmanager
def attached(path: Path, *options: str) -> Iterator[Path]:
    """A loop device that plays `path`."""
    loop = Path(_run("losetup", "--find", "--show", *options, path))
    try:
        yield loop
    finally:
        _run("losetup", "--detach", loop)


def image(path, size=32 * MIB, *, ext4=False):
    with path.open("wb") as file:
        file.truncate(size)
    if ext4:
        _run("mkfs.ext4", "-q", path)
    return path


@pytest.fixture
def loop(tmp_path):
    with attached(image(tmp_path / "card.img", ext4=True)) as device:
        yield device


def names(path: Path, *, settle: float = 0.5, **options: Any) -> list[str]:
    refusals = examine(path, settle=settle, **options).refusals
    return [refusal.name for refusal in refusals if refusal.name not in LOOP]


def held(path: Path, accepted: Collection[str] = LOOP) -> AbstractContextManager[Held]:
    return hold(admit(examine(path), accepted), settle=0.3)


def refusals_of_hold(device: Device) -> list[str]:
    with pytest.raises(DeviceRefusedError) as caught, hold(device, settle=0.3):
        pytest.fail("it was opened")
    return list(caught.value.refusals)


def test_a_free_device_is_held_written_read_back_and_nobody_elses(loop):
    device = admit(examine(loop, image_size=32 * MIB), LOOP)
    with hold(device) as ours:
        assert ours.device.size == 32 * MIB
        _write_and_read_back(ours)
        with pytest.raises(OSError, match="busy"):
            os.open(loop, os.O_RDONLY | os.O_EXCL)
        assert refusals_of_hold(device) == ["claimed"]
        assert ours.reread_table()
    os.close(os.open(loop, os.O_RDONLY | os.O_EXCL))


def test_room_to_the_sector(tmp_path):
    for size, refused in ((32 * MIB, []), (32 * MIB - 512, ["too-small"])):
        path = tmp_path / f"{size}.img"
        with path.open("wb") as file:
            file.truncate(size)
        with attached(path) as card:
            assert names(card, image_size=32 * MIB) == refused


def _write_and_read_back(ours: Held) -> None:
    data = b"piimage!" * 512
    assert os.pwrite(ours.fd, data, 8 * MIB) == len(data)
    os.fsync(ours.fd)
    assert ours.device.node.read_bytes()[8 * MIB :][: len(data)] == data


def test_the_disk_that_this_machine_runs_from(loop):
    """In a namespace of its own, where the loop is what `/home` lies on."""
    look = f"from piimage.flash.guard import *; print(*map(repr, examine(Path({str(loop)!r})).refusals), sep='\\n')"
    program = f"from pathlib import Path; {look}"
    script = f"mount {loop} /home && exec {sys.executable} -c {shlex.quote(program)}"
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    said = _run(*argv, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert "name='system-disk', reason='this machine runs from it (`/home`)', override=None" in said
    assert "name='mounted'" not in said


def test_mounted_and_unmounted_on_request(loop, tmp_path):
    point = tmp_path / "my card"
    point.mkdir()
    _run("mount", loop, point)
    try:
        found = examine(loop)
        refusals = [r for r in found.refusals if r.name not in LOOP]
        assert [(r.name, r.override) for r in refusals] == [("mounted", "--unmount")]
        assert f"is mounted at `{point}`" in refusals[0].reason
        assert [(c.number, c.type) for c in found.contents] == [(0, "ext4")]
        assert refusals_of_hold(found.device) == ["claimed"]
        with point.joinpath("busy").open("w"), pytest.raises(DeviceRefusedError, match="busy"):
            unmount(found)
        assert os.path.ismount(point)
        unmount(found)
        assert not os.path.ismount(point)
    finally:
        subprocess.run(["umount", point], check=False, capture_output=True)
    assert names(loop) == []


def test_mounted_in_another_namespace(loop, tmp_path):
    point = tmp_path / "point"
    point.mkdir()
    script = f"mount {loop} {point} && echo mounted && read line"
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "mounted\n"
        assert not os.path.ismount(point)
        found = examine(loop)
        assert [r.name for r in found.refusals if r.name not in LOOP] == ["mounted-elsewhere"]
        assert f"process {other.pid}" in found.refusals[-1].reason
        with pytest.raises(DeviceRefusedError, match="only a process in its namespace"):
            unmount(found)
        assert refusals_of_hold(found.device) == ["claimed"]
        other.communicate("\n")
    assert names(loop) == []


def test_mounted_where_no_process_is_left(loop, tmp_path):
    """A namespace kept by a bind mount: no process shows it, the kernel's claim does."""
    point, keeper = tmp_path / "point", tmp_path / "namespace"
    point.mkdir()
    keeper.touch()
    _run("mount", "--bind", tmp_path, tmp_path)
    _run("mount", "--make-private", tmp_path)
    try:
        _run("unshare", f"--mount={keeper}", "mount", loop, point)
        try:
            assert names(loop) == ["claimed"]
        finally:
            _run("umount", keeper)
    finally:
        _run("umount", tmp_path)
    deadline = time.monotonic() + 10
    while (
        names(loop) and time.monotonic() < deadline
    ):  # the kernel takes namespaces down when it has time
        time.sleep(0.1)
    assert names(loop) == []


def test_swap(tmp_path):
    with attached(image(tmp_path / "swap.img")) as loop:
        device = admit(examine(loop), LOOP)
        _run("mkswap", loop)
        _run("swapon", loop)
        try:
            assert names(loop) == ["swap"]
            assert refusals_of_hold(device) == ["claimed"]
        finally:
            _run("swapoff", loop)


def test_a_loop_on_top_which_an_exclusive_open_does_not_see(loop):
    device = admit(examine(loop), LOOP)
    with attached(loop) as above:
        os.close(os.open(loop, os.O_RDWR | os.O_EXCL))
        found = examine(loop)
        assert [r.name for r in found.refusals if r.name not in LOOP] == ["under-a-loop"]
        assert f"`{above}` plays `{loop.name}`" in found.refusals[-1].reason
        assert refusals_of_hold(device) == ["under-a-loop"]


def test_the_file_under_a_loop(tmp_path):
    path = image(tmp_path / "card.img")
    with attached(path):
        assert names(path) == ["under-a-loop"]
        path.rename(tmp_path / "renamed.img")
        assert names(tmp_path / "renamed.img") == ["under-a-loop"]
    assert names(tmp_path / "renamed.img") == []


def test_a_read_only_loop_which_may_be_opened_for_writing(tmp_path):
    path = image(tmp_path / "card.img")
    with attached(path, "--read-only") as loop:
        assert names(loop) == ["read-only"]
    with attached(path) as loop:
        device = admit(examine(loop), LOOP)
        _run("blockdev", "--setro", loop)
        try:
            os.close(os.open(loop, os.O_RDWR))
            assert names(loop) == ["read-only"]
            assert refusals_of_hold(device) == ["read-only"]
        finally:
            _run("blockdev", "--setrw", loop)  # a loop device keeps it, whatever it plays


def test_a_partition_and_the_disk_of_a_mounted_one(tmp_path):
    with attached(image(tmp_path / "card.img"), "--partscan") as loop:
        _run("addpart", loop, 1, 2048, 16384)
        part = Path(f"{loop}p1")
        point = tmp_path / "point"
        point.mkdir()
        try:
            assert names(part) == ["partition"]
            assert names(loop) == []
            _run("mkfs.ext4", "-q", part)
            _run("mount", part, point)
            try:
                assert names(loop) == ["mounted"]
                with attached(part):
                    assert names(loop) == ["under-a-loop", "mounted"]
            finally:
                _run("umount", point)
        finally:
            _run("delpart", loop, 1)


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_open_in_another_process_which_an_exclusive_open_does_not_see(loop, mode):
    device = admit(examine(loop), LOOP)
    script = (
        f"import sys; f = open({str(loop)!r}, {mode!r}); print(1, flush=True); sys.stdin.read()"
    )
    argv = ["python3", "-c", script]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        other.stdout.readline()
        os.close(os.open(loop, os.O_RDWR | os.O_EXCL))
        (refusal,) = [r for r in examine(loop, settle=0.3).refusals if r.name not in LOOP]
        assert refusal.reason == f"`python3` (process {other.pid}) has `{loop.name}` open"
        assert refusals_of_hold(device) == ["open-elsewhere"]
        other.communicate("")
    with hold(device):
        pass


def test_a_lock_that_udev_or_another_flash_has(loop):
    device = admit(examine(loop), LOOP)
    fd = os.open(loop, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        assert refusals_of_hold(device) == ["locked"]
    finally:
        os.close(fd)
    with hold(device):
        pass


def test_a_name_given_to_another_medium_between_question_and_open(tmp_path):
    first, second = image(tmp_path / "first.img"), image(tmp_path / "second.img")
    with attached(first) as loop:
        device = admit(examine(loop), LOOP)
    _run("losetup", loop, second)
    try:
        assert examine(loop).device.number == device.number
        assert examine(loop).device.size == device.size
        assert refusals_of_hold(device) == ["changed"]
        assert second.read_bytes().strip(b"\0") == b""
    finally:
        _run("losetup", "--detach", loop)


def test_a_device_that_is_gone_before_it_is_opened(tmp_path):
    with attached(image(tmp_path / "card.img")) as loop:
        device = admit(examine(loop), LOOP)
    assert names(loop) == ["no-medium"]
    with pytest.raises(DeviceRefusedError), hold(device, settle=0.2):
        pytest.fail("it was opened")


def test_a_file_put_in_the_place_of_another_between_question_and_open(tmp_path):
    path = image(tmp_path / "card.img")
    device = admit(examine(path))
    image(tmp_path / "other.img").rename(path)
    assert refusals_of_hold(device) == ["changed"]


def test_a_file_as_target(tmp_path):
    path = image(tmp_path / "card.img")
    with held(path, ()) as ours:
        assert ours.device.is_file
        assert ours.reread_table()
        _write_and_read_back(ours)


def test_a_file_that_is_not_there_yet_becomes_its_owners_alone(tmp_path):
    path = tmp_path / "card.img"
    device = admit(examine(path, image_size=MIB))
    with hold(device) as ours:
        assert os.fstat(ours.fd).st_mode & 0o777 == 0o600
    assert refusals_of_hold(device) == ["changed"]
    path.unlink()
    path.symlink_to("elsewhere")
    assert refusals_of_hold(device) == ["changed"]


def test_the_source_lies_on_it(loop, tmp_path):
    point = tmp_path / "point"
    point.mkdir()
    _run("mount", loop, point)
    try:
        source = image(point / "node3.img", MIB)
        assert names(loop, source=source) == ["source", "mounted"]
    finally:
        _run("umount", point)
    assert names(loop, source=loop) == ["source"]


def test_content_that_no_card_for_a_pi_has(loop):
    assert names(loop) == []
    loop.write_bytes(b"LUKS\xba\xbe\0\x01".ljust(2048, b"\0"))
    assert names(loop) == ["foreign-content"]


def test_a_card_tells_its_node_and_what_is_on_it(tmp_path):
    label = CardLabel(cluster="lab", node="n3", number=3, build="b", variant="v")
    files = {"piimage.json": json.dumps(asdict(label)).encode()}
    path = make_phony(tmp_path / "card.img", root_size=8 * MIB, boot=files)
    with attached(path) as loop:
        assert read_label(loop) == label
        assert read_unfinished(loop) is None
        assert [(c.number, c.words) for c in examine(loop).contents] == [
            (1, "vfat `bootfs`"),
            (2, "ext4 `rootfs`"),
        ]


def test_the_list_has_the_devices_of_this_machine(loop):
    found = {each.examined.device.node: each for each in candidates()}
    assert [r.name for r in found[loop].examined.refusals] == ["not-removable"]
    assert not found[loop].possible
    shown = list(lines(list(found.values())))
    assert not [line for line in shown if str(loop) in line]
    assert re.fullmatch(
        r"  \d+ loop device(s, which play files|, which plays a file) of this machine", shown[-1]
    )


def test_what_cannot_let_go_or_is_another_or_mounted_is_left_alone(loop, tmp_path):
    device = examine(loop).device
    assert not eject(device)
    assert not eject(replace(device, size=1))
    _run("mount", loop, tmp_path)
    try:
        assert not eject(device)
    finally:
        _run("umount", tmp_path)


def test_a_user_who_may_not_write_is_told_to_be_root(loop):
    device = admit(examine(loop), LOOP)
    pid = os.fork()
    if not pid:
        os.setresuid(65534, 65534, 65534)
        try:
            with hold(device):
                pass
        except MissingToolError as error:
            os._exit(0 if "sudo" in (error.hint or "") else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
