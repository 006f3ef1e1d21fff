"""XFS images that mkfs.xfs fills from a prototype: no root, no mount."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

from piimage.disk.checksum import crc32c
from piimage.disk.slots import Patch

MIB = 1 << 20
#: The smallest that mkfs.xfs makes.
SIZE = 300 * MIB


@dataclass(frozen=True)
class Node:
    """A file (bytes), link (text), device (two numbers) or directory (names and what they are)."""

    data: bytes | str | tuple[int, int] | dict[str, Node]
    mode: int = 0o755
    uid: int = 0
    gid: int = 0


def make_xfs(path, root, *options, size=SIZE):
    """A file system at `path` with what `root` has."""
    contents = path.with_name(path.name + ".contents")
    contents.mkdir()
    lines = ["piimage", "0 0", *_described("", Node(root), contents), "$"]
    prototype = contents / "prototype"
    prototype.write_text("\n".join(lines) + "\n")
    with path.open("wb") as file:
        file.truncate(size)
    run("mkfs.xfs", "-q", *options, "-p", str(prototype), str(path))
    return path


def run(*argv):
    """What a tool of xfsprogs says."""
    argv = (f"/usr/sbin/{argv[0]}", *argv[1:])
    done = subprocess.run(argv, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def xfs_db(path, *commands, write=False):
    """What xfs_db answers."""
    words = [word for command in commands for word in ("-c", command)]
    return run("xfs_db", "-x" if write else "-r", *words, str(path))


def _described(name, node, contents):
    head = f"{name} {'{}'}--{node.mode & 0o777:03o} {node.uid} {node.gid}"
    if isinstance(node.data, dict):
        yield head.format("d").strip()
        for each, child in node.data.items():
            yield from _described(each, child, contents)
        if name:
            yield "$"
    elif isinstance(node.data, tuple):
        yield head.format("c") + " {} {}".format(*node.data)
    elif isinstance(node.data, str):
        yield head.format("l") + f" {node.data}"
    else:
        source = contents / str(len(list(contents.iterdir())))
        source.write_bytes(node.data)
        yield head.format("-") + f" {source}"


def summed(raw, at):
    """A structure with its checksum, which is at byte `at`."""
    raw = bytearray(raw)
    raw[at : at + 4] = bytes(4)
    raw[at : at + 4] = (crc32c(0xFFFFFFFF, raw) ^ 0xFFFFFFFF).to_bytes(4, "little")
    return bytes(raw)


def resummed(image, start, size, at, changes):
    """A patch for the structure of `size` bytes at byte `start`: `(offset, bytes)` of the image, a right checksum."""
    with image.open("rb") as file:
        file.seek(start)
        raw = bytearray(file.read(size))
    for place, data in changes:
        raw[place - start : place - start + len(data)] = data
    return Patch(start, summed(raw, at))
