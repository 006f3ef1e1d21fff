from __future__ import annotations

import json
import os
import random
import re
import subprocess

import pytest
from phony import ARM64, BOOT_START, ROOT_START, SOURCE_DATE_EPOCH, Node, make_phony

from piimage.bases.facts_reader import read_facts
from piimage.disk.sparse import data_ranges, hash_file
from piimage.errors import ImageError, PiimageError, UnsupportedError
from piimage.facts import Facts

ID = "ab" * 32


@pytest.fixture(scope="module")
def facts(phony_master):
    return read_facts(phony_master, image_id=ID)


def text(value, mode=0o644):
    return Node(value.encode() if isinstance(value, str) else value, mode)


def variant(tmp_path, **options):
    return make_phony(tmp_path / "variant.img", **options)


def test_what_decides(facts):
    assert facts.image_id == ID
    assert (facts.os.id, facts.os.version_id, facts.os.codename) == ("debian", "13", "trixie")
    assert facts.architecture == "arm64"
    assert facts.mounts == {"/": 2, "/boot/firmware": 1}
    assert facts.firmware == "/boot/firmware"
    assert facts.network_stack == "netplan-networkd"
    assert facts.table.disk_id == "1badcafe"
    assert facts.cloud_init == facts.packages["cloud-init"] == "25.1.4-1"
    assert facts.rpi_issue is None


def test_what_is_on_board(facts):
    assert facts.kernels == ("6.12.43+deb13-arm64",)
    assert facts.timezones == {"Etc/UTC", "Europe/Rome"}
    assert facts.locales == {"C", "POSIX"}
    assert facts.units["ssh.service"].enabled
    assert not facts.units["chrony.service"].enabled


def test_all_of_etc_with_owners_and_content(facts):
    shadow = facts.files["/etc/shadow"]

    assert (shadow.kind, shadow.mode, shadow.uid, shadow.gid) == ("file", 0o640, 0, 42)
    assert shadow.text.startswith("root:*:20300:")
    assert facts.files["/etc/sudoers.d"].mode == 0o750
    assert facts.files["/etc/localtime"].target == "/usr/share/zoneinfo/Etc/UTC"
    assert "trixie" in facts.text("/etc/os-release")


def test_parents_of_what_components_write_without_content(facts):
    seed = facts.files["/var/lib/cloud/seed/nocloud/user-data"]
    home = facts.files["/home/pi"]

    assert (seed.mode, seed.content) == (0o600, None)
    assert (home.kind, home.mode, home.uid, home.gid) == ("dir", 0o700, 1000, 1000)
    assert facts.files["/bin"].target == "usr/bin"
    above = {path.rpartition("/")[0] or "/" for path in facts.files}
    assert above <= facts.files.keys()


def test_the_firmware_partition_under_its_mount_point(facts):
    assert "root=LABEL=rootfs" in facts.text("/boot/firmware/cmdline.txt")
    assert facts.files["/boot/firmware/bootcode.bin"].content is None
    assert facts.files["/boot/firmware/overlays"].kind == "dir"
    assert "/boot/firmware/overlays/disable-bt.dtbo" not in facts.files


def test_facts_survive_the_cache(facts):
    assert Facts.from_json(json.loads(json.dumps(facts.to_json()))) == facts


def e2fsprogs():
    """The version of the mke2fs that made the phony image, as numbers."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    said = subprocess.run(
        ["mke2fs", "-V"], env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True
    )  # fmt: skip
    return tuple(map(int, re.match(r"mke2fs (\d+)\.(\d+)\.(\d+)", said.stderr).groups()))


def test_made_is_when_the_packages_were_last_touched(phony, facts):
    script = (
        b"sif /var/lib/dpkg/status mtime 20250102030405\nsif /usr/lib/os-release mtime 19990101\n"
    )
    subprocess.run(
        ["debugfs", "-w", "-f", "-", f"{phony}?offset={ROOT_START}"],
        input=script,
        env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin", "TZ": "UTC"},
        check=True,
        capture_output=True,
    )

    assert read_facts(phony, image_id=ID).made == 1735787045
    if e2fsprogs() >= (1, 47, 1):
        assert facts.made == SOURCE_DATE_EPOCH  # since then mke2fs -d gives no file a later time
    else:
        assert facts.made > 1735787045


def test_reading_changes_nothing_and_needs_no_program(phony, monkeypatch):
    before = hash_file(phony)
    monkeypatch.setenv("PATH", "/nonexistent")
    phony.chmod(0o400)

    read_facts(phony, image_id=ID)

    assert hash_file(phony) == before


def test_raspberry_pi_os_with_partuuid_and_networkmanager(tmp_path):
    wants = "/etc/systemd/system/multi-user.target.wants/NetworkManager.service"
    status = "Package: {}\nStatus: install ok installed\nArchitecture: arm64\nVersion: 1\n"
    image = variant(
        tmp_path,
        root={
            "/etc/fstab": text(
                "proc /proc proc defaults 0 0\n"
                "PARTUUID=1badcafe-01  /boot/firmware  vfat    defaults          0       2\n"
                "PARTUUID=1badcafe-02  /               ext4    defaults,noatime  0       1\n"
            ),
            "/etc/rpi-issue": text("Raspberry Pi reference 2025-05-13\n"),
            "/usr/lib/systemd/system/NetworkManager.service": text(
                "[Install]\nWantedBy=multi-user.target\n"
            ),
            wants: Node("/lib/systemd/system/NetworkManager.service"),
            "/var/lib/dpkg/status": text(status.format("network-manager")),
        },
    )

    found = read_facts(image, image_id=ID)

    assert found.mounts == {"/": 2, "/boot/firmware": 1}
    assert found.network_stack == "networkmanager"
    assert found.rpi_issue == "Raspberry Pi reference 2025-05-13\n"
    assert found.cloud_init is None


def test_large_and_odd_files_of_etc(tmp_path):
    odd = b"root:x:0:0\n\xff\xfe::::\n:::::::::\n\n+::\n" + b"x" * 9000 + b"\n"
    image = variant(
        tmp_path,
        root={
            "/etc/large": text(b"x" * ((1 << 20) + 1)),
            "/etc/passwd": text(odd),
            "/etc/loop": Node("loop"),
            "/etc/out": Node("../../../../etc/passwd"),
            "/etc/na\nme": text("x"),
        },
    )

    found = read_facts(image, image_id=ID)

    assert (found.files["/etc/large"].kind, found.files["/etc/large"].content) == ("file", None)
    assert found.files["/etc/passwd"].content == odd
    assert found.files["/etc/loop"].kind == "link"
    assert found.text("/etc/loop") == ""
    assert found.text("/etc/out") == found.text("/etc/passwd")
    assert found.files["/etc/na\nme"].text == "x"
    assert Facts.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize(
    ("root", "error", "message"),
    [
        (
            {"/etc/os-release": None, "/usr/lib/os-release": None},
            UnsupportedError,
            "no partition holds /etc/os-release.*saw: 1 vfat `bootfs`, 2 ext4 `rootfs`",
        ),
        ({"/usr/lib/os-release": text("NAME=x\n")}, UnsupportedError, "no `ID`.*`NAME=x`"),
        ({"/usr/bin/dash": None, "/usr/bin/bash": None}, ImageError, "no complete system"),
        ({"/usr/bin/dash": text(ARM64[:18] + b"\x3e" + ARM64[19:])}, ImageError, "`amd64`, but"),
        ({"/etc/fstab": None}, ImageError, "fstab does not mount.*says: nothing"),
        ({"/usr/lib/systemd/system/systemd-networkd.service": Node("/dev/null")},
            UnsupportedError, "network stack.*none of them; netplan is installed"),
    ],
    ids=["no-os", "no-id", "no-programs", "foreign-programs", "no-fstab", "no-network"],
)  # fmt: skip
def test_what_is_refused_says_what_was_seen(tmp_path, root, error, message):
    with pytest.raises(error, match=message):
        read_facts(variant(tmp_path, root=root), image_id=ID)


def test_a_fat_without_firmware(phony):
    name = f"{phony}@@{BOOT_START}"
    files = ["::/config.txt", "::/bootcode.bin"]
    env = {**os.environ, "MTOOLS_SKIP_CHECK": "1"}
    subprocess.run(["mdel", "-i", name, *files], check=True, env=env)

    with pytest.raises(
        UnsupportedError, match="no FAT partition holds the Raspberry Pi's firmware"
    ):
        read_facts(phony, image_id=ID)


def test_another_file_system_is_named(tmp_path):
    image = variant(tmp_path)
    with image.open("r+b") as file:
        file.seek(ROOT_START)
        file.write(bytes(4096))
        file.seek(ROOT_START)
        file.write(bytes(4086) + b"SWAPSPACE2")

    with pytest.raises(UnsupportedError, match="saw: 1 vfat `bootfs`, 2 swap"):
        read_facts(image, image_id=ID)


@pytest.mark.parametrize("seed", range(8))
def test_damage_anywhere_is_one_of_our_errors_or_none(phony, seed):
    random_ = random.Random(seed)
    with phony.open("r+b", buffering=0) as file:
        used = [at for start, length in data_ranges(file.fileno()) for at in (start, length)]
        used = [
            at + i for at, n in zip(used[::2], used[1::2], strict=True) for i in range(0, n, 512)
        ]
        for round_ in range(12):
            hurt = {random_.choice(used) + random_.randrange(512) for _ in range(1 + round_)}
            before = {at: os.pread(file.fileno(), 4, at) for at in hurt}
            for at in hurt:
                os.pwrite(file.fileno(), random_.randbytes(random_.choice([1, 2, 4])), at)
            try:
                read_facts(phony, image_id=ID)
            except PiimageError as error:
                assert error.message  # noqa: PT017 -- any other exception is the failure
            for at, data in before.items():
                os.pwrite(file.fileno(), data, at)


def test_the_command_line_that_a_prefix_leads_to(tmp_path):
    image = variant(
        tmp_path,
        boot={
            "config.txt": b"[all]\nos_prefix=current/\n[tryboot]\nos_prefix=new/\n",
            "current/cmdline.txt": b"root=LABEL=writable\n",
            "new/cmdline.txt": b"root=LABEL=next\n",
        },
        root_size=12 << 20,
    )

    found = read_facts(image, image_id=ID)

    assert found.text("/boot/firmware/current/cmdline.txt") == "root=LABEL=writable\n"
    assert found.files["/boot/firmware/new"].kind == "dir"
    assert not found.has("/boot/firmware/new/cmdline.txt")


def test_what_a_mount_hides_is_not_seen(tmp_path):
    image = variant(
        tmp_path,
        root={
            "/etc/fstab": text("LABEL=rootfs / ext4 rw 0 1\nLABEL=bootfs /boot vfat rw 0 2\n"),
            "/boot/cmdline.txt": text("a decoy below the mount\n"),
            "/boot/hidden": text("x\n"),
        },
        root_size=12 << 20,
    )

    found = read_facts(image, image_id=ID)

    assert found.firmware == "/boot"
    assert "root=LABEL=rootfs" in found.text("/boot/cmdline.txt")
    assert not found.has("/boot/hidden")


def test_a_system_that_nobody_knows_is_refused_when_it_is_read(tmp_path):
    image = variant(
        tmp_path,
        root={"/usr/lib/os-release": text("ID=arch\nPRETTY_NAME=Arch\n")},
        root_size=12 << 20,
    )

    with pytest.raises(UnsupportedError, match="saw: os-release has `ID=arch`, `Arch`"):
        read_facts(image, image_id=ID)
