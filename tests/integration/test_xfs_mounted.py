"""The XFS reader against Linux: images of the test's own are mounted, filled in all forms, and read again.

As root, on loop devices, some seconds in all; no appliance.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
import time
from contextlib import contextmanager

import pytest
from xfs_images import MIB, SIZE, run

from piimage.disk.sparse import data_ranges
from piimage.disk.xfs import check, open_xfs
from piimage.errors import ImageError

FLAVOURS = {
    "as-it-comes": (),
    "small-blocks": ("-b", "size=1024", "-n", "size=8k", "-m", "rmapbt=1"),
    "old": ("-m", "bigtime=0,reflink=0,finobt=0,inobtcount=0", "-i", "sparse=0"),
    "wide": ("-i", "nrext64=1,size=1024", "-n", "size=64k", "-s", "size=4096", "-l", "su=64k"),
}
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
LABEL = b"system_u:object_r:etc_t:s0\0"


@contextmanager
def mounted(image):
    place = image.with_name("mounted")
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "xfs", "-o", "loop", image, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)
        # A mount namespace that began meanwhile has it mounted still: the loop device goes with the last.
        deadline = time.monotonic() + 60
        while subprocess.run(["losetup", "-j", image], check=True, capture_output=True).stdout:
            assert time.monotonic() < deadline, "the image stays mounted elsewhere"
            time.sleep(0.05)


def made(path, *options):
    with path.open("wb") as file:
        file.truncate(SIZE)
    run("mkfs.xfs", "-q", *options, str(path))
    return path


def fill(root):
    """Every form that directories, files, links and attributes have."""
    for count, name in ((10, "{}"), (300, "{:03}"), (20_000, "a-name-of-some-length-{:05}")):
        folder = root / f"names-{count}"
        folder.mkdir()
        for n in range(count):
            (folder / name.format(n)).touch()
    for n in range(0, 20_000, 3):  # leaves holes among the records
        (root / "names-20000" / f"a-name-of-some-length-{n:05}").unlink()
    odd = root / "odd"
    odd.mkdir()
    for raw in (b"a\nb", b"\xff\xfe", b"n" * 255, b" "):
        (odd / os.fsdecode(raw)).write_bytes(raw)
    for n in (1, 59, 400, 1023):
        (root / f"link-{n}").symlink_to(("x/" * n)[: n - 1] + "y")
    os.link(odd / "a\nb", root / "twin")
    os.mknod(root / "null", 0o20666, os.makedev(1, 300))
    os.mknod(root / "disk", 0o60660, os.makedev(259, 70_000))
    os.mkfifo(root / "pipe")
    content(root)
    attributes(root)


def content(root):
    with (root / "scattered").open("wb") as file:
        for n in range(0, 4000, 2):
            file.seek(n * 4096)
            file.write(bytes([n % 251]) * 4096)
    with (root / "reserved").open("wb") as file:
        file.write(b"hello" * 1000)
        os.posix_fallocate(file.fileno(), 8192, MIB)
        file.flush()
        run("xfs_io", "-c", "falloc -k 2m 1m", str(root / "reserved"))  # behind its end
    with (root / "sparse").open("wb") as file:
        file.seek(50 * MIB)
        file.write(b"end")
    (root / "tool").write_bytes(os.urandom(MIB + 77))
    (root / "tool").chmod(0o4755)
    os.chown(root / "tool", 70_000, 1 << 31)
    os.utime(root / "reserved", ns=(0, -5))
    os.utime(root / "sparse", ns=(0, 2_000_000_000 * 10**9))


def attributes(root):
    path = root / "attributes"
    path.touch()
    for n in range(400):
        os.setxattr(path, f"user.number-{n}", b"%d" % n * 20)
    for n in range(20):
        os.setxattr(path, f"user.long-{n}", bytes([n]) * (1 + n * 3000))
    os.setxattr(path, "user.most", os.urandom(65536))
    os.setxattr(path, "trusted.some", b"1")
    os.setxattr(path, "security.selinux", LABEL)
    os.setxattr(root / "tool", "security.selinux", LABEL)
    os.setxattr(root / "odd", "security.selinux", LABEL)
    os.setxattr(root / "link-59", "security.selinux", LABEL, follow_symlinks=False)
    os.setxattr(root / "tool", "security.capability", CAPABILITY)
    # getfacl(1): user::rw-, user 1000 r--, group::r--, mask::r--, other::---; the default one likewise
    acl = bytes.fromhex(
        "02000000 01000600ffffffff 02000400e8030000 04000400ffffffff 10000400ffffffff 20000000ffffffff"
    )
    for name in ("access", "default"):
        os.setxattr(root / "odd", f"system.posix_acl_{name}", acl)


def by_linux(root):
    """What Linux tells of each path."""
    found = {}
    for path in (root, *root.rglob("*")):
        told = path.lstat()
        values = {
            name: os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False)
            if not name.startswith("trusted.SGI_ACL_")
        }
        data: object = None
        if stat.S_ISREG(told.st_mode):
            with path.open("rb") as file:
                data = hashlib.file_digest(file, "sha256").hexdigest()
        elif stat.S_ISLNK(told.st_mode):
            data = os.fsencode(path.readlink())
        elif told.st_rdev:
            data = (os.major(told.st_rdev), os.minor(told.st_rdev))
        found["/" + "/".join(path.relative_to(root).parts)] = (
            told.st_ino, told.st_mode, told.st_uid, told.st_gid, told.st_nlink,
            told.st_mtime_ns // 10**9, data, values,
        )  # fmt: skip
    return found


def by_us(image):
    found = {}
    with open_xfs(image, 0) as xfs:
        for path, inode in xfs.walk():
            data: object = None
            if inode.kind == "file":
                hasher = hashlib.sha256()
                for piece in xfs.pieces(inode):
                    hasher.update(piece)
                data = hasher.hexdigest()
            elif inode.kind == "link":
                data = xfs.link_target(inode)
            elif stat.S_ISCHR(inode.mode) or stat.S_ISBLK(inode.mode):
                data = xfs.device(inode)
            found[path] = (
                inode.number, inode.mode, inode.uid, inode.gid, inode.links, inode.mtime, data,
                xfs.attributes(inode),
            )  # fmt: skip
    return found


@pytest.mark.parametrize("options", FLAVOURS.values(), ids=FLAVOURS)
def test_reads_what_linux_wrote(tmp_path, options):
    image = made(tmp_path / "x.img", *options)
    with mounted(image) as root:
        fill(root)
        expected = by_linux(root)

    assert by_us(image) == expected
    check(image, 0, SIZE)
    with open_xfs(image, 0) as xfs:
        inodes = dict(xfs.walk())
        assert inodes["/scattered"].raw[5] == 3  # a tree of extents
        assert inodes["/attributes"].raw[83] in (2, 3)
        assert max(inode.number for inode in inodes.values()) > 1 << 15
        used = {n for at, length in xfs.allocated() for n in range(at >> 10, at + length >> 10)}
        for inode in inodes.values():
            if inode.kind == "file":
                size = xfs.block_size
                for each in xfs.runs(inode):
                    at, length = each.physical * size, each.count * size
                    assert used.issuperset(range(at >> 10, at + length >> 10))


def test_what_shares_blocks_is_not_overwritten(tmp_path):
    image = made(tmp_path / "x.img")
    with mounted(image) as root:
        (root / "a").write_bytes(b"shared" * 10_000)
        (root / "alone").write_bytes(b"alone" * 10_000)
        subprocess.run(["cp", "--reflink=always", root / "a", root / "b"], check=True)

    with open_xfs(image, 0) as xfs:
        assert len(xfs.extents("/alone")) == 1
        for path in ("/a", "/b"):
            assert xfs.read_files([path]) == {path: b"shared" * 10_000}
            with pytest.raises(ImageError, match="shares blocks"):
                xfs.extents(path)


def test_a_log_is_clean_after_an_unmount_and_at_no_other_time(tmp_path, monkeypatch):
    # mkfs.xfs makes small logs for its own tests alone, which it tells by these.
    for name in ("TEST_DIR", "TEST_DEV", "QA_CHECK_FS"):
        monkeypatch.setenv(name, "yes")
    image, copy = made(tmp_path / "x.img", "-l", "size=8m,su=64k"), tmp_path / "copy.img"
    turns = []
    for n in range(3):
        with mounted(image) as root:
            for count in range(70 + n):  # each takes 64 KiB of the log
                with (root / f"{n}-{count}").open("wb") as file:
                    file.write(b"x")
                    os.fsync(file.fileno())
            shutil.copyfile(image, copy)
        with pytest.raises(ImageError, match="was not unmounted"), open_xfs(copy, 0):
            pass
        with open_xfs(image, 0) as xfs:
            superblock = xfs.inodes.superblock
            place = superblock.log_start * superblock.block_size
            turns.append(int.from_bytes(xfs.source.read(place + 4, 4), "big"))
            assert len(xfs.names(xfs.inode(xfs.root))) == sum(70 + each for each in range(n + 1))
    assert turns[-1] > turns[0] > 0


def test_check_tells_clean_from_broken(tmp_path):
    image, late = made(tmp_path / "a b.img"), tmp_path / "late.img"
    with image.open("rb") as source, late.open("wb") as target:
        target.truncate(SIZE + 2 * MIB)
        for start, length in data_ranges(source.fileno()):
            os.copy_file_range(source.fileno(), target.fileno(), length, start, MIB + start)
    for path, start in ((image, 0), (late, MIB)):
        check(path, start, SIZE)
        with path.open("r+b") as file:
            file.seek(start + 1024 + 16)  # how many inodes the first group has
            file.write(b"\0\0\1\0")

        words = f"at byte {start} of `{path.name}` is not clean\n    "
        with pytest.raises(ImageError, match=re.escape(words) + "(?!Phase).*(AGI|agi)"):
            check(path, start, SIZE)
