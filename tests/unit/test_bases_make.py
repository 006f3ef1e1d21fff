"""`base make` with fake apt-get, mmdebstrap and unshare on PATH: what they are asked, what is made of their answers."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from phony import ARM64, ROOT, Node

from piimage.bases import archive, debian, make, namespace
from piimage.bases.store import Store
from piimage.disk import ext4, fat
from piimage.disk.table import read_table
from piimage.errors import MissingToolError, PiimageError, ToolFailedError, WriteFailedError
from piimage.progress import Quiet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MIB = 1 << 20
X86 = ARM64[:18] + b"\x3e\0" + ARM64[20:]


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Puts programs first on PATH."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")

    def program(name, script, shell="/bin/sh"):
        (directory / name).write_text(f"#!{shell}\n{script}\n")
        (directory / name).chmod(0o755)

    return program


class Notes:
    """A `Task` that remembers its notes."""

    def __init__(self):
        self.notes = []

    def total(self, amount):
        pass

    advance = total

    def note(self, text):
        self.notes.append(text)


DEBIAN = "Debian|Debian|http://deb.test/debian/"
SECURITY = "Debian|Debian-Security|http://deb.test/debian-security/"


@pytest.mark.parametrize(
    ("listed", "lines"),
    [
        ([], []),
        (["Ubuntu|Ubuntu|http://ubuntu.test/"], []),
        (["Docker|Docker|http://docker.test/", SECURITY], []),
        (
            [DEBIAN],
            [
                "deb http://deb.test/debian/ trixie main non-free-firmware",
                "deb http://deb.test/debian/ trixie-updates main non-free-firmware",
            ],
        ),
        (
            ["Debian|Debian|cdrom:[Debian 13]/", DEBIAN, SECURITY, "Debian|Debian|http://other.test/"],
            [
                "deb http://deb.test/debian/ trixie main non-free-firmware",
                "deb http://deb.test/debian/ trixie-updates main non-free-firmware",
                "deb http://deb.test/debian-security/ trixie-security main non-free-firmware",
            ],
        ),
    ],
)  # fmt: skip
def test_the_hosts_own_archive(fake, listed, lines):
    fake("apt-get", "cat <<'EOF'\n" + "\n".join(listed) + ("\n" if listed else "") + "EOF")

    assert archive.sources("trixie", "main,non-free-firmware") == lines


def test_an_apt_that_is_broken_or_not_there(fake, monkeypatch):
    fake("apt-get", "echo 'E: The list of sources could not be read.' >&2; exit 100")
    assert archive.sources("trixie", "main") == []
    monkeypatch.setattr("piimage.run._SBIN", ())
    monkeypatch.setenv("PATH", "/nowhere")
    assert archive.sources("trixie", "main") == []


def test_mmdebstrap_is_watched(fake, tmp_path):
    fake(
        "mmdebstrap",
        'echo "I: extracting archives..."; echo noise; echo "Setting up foo (1.2) ..." >&2',
    )
    task = Notes()

    archive.mmdebstrap(["mmdebstrap"], env={}, log=tmp_path / "log", task=task)

    assert task.notes == ["I: extracting archives...", "Setting up foo (1.2) ..."]
    assert b"noise" in (tmp_path / "log").read_bytes()


def test_mmdebstrap_that_fails_says_why(fake, tmp_path):
    fake(
        "mmdebstrap",
        'echo noise; echo "W: it is late"; echo "E: Unable to locate package foo"\n'
        'echo "I: main() received signal PIPE"; echo "E: mmdebstrap failed to run"; exit 25',
    )

    with pytest.raises(ToolFailedError) as caught:
        archive.mmdebstrap(["mmdebstrap"], env={}, log=tmp_path / "log", task=Notes())

    lines = caught.value.message.splitlines()
    assert lines[0] == "`mmdebstrap` failed with exit status 25"
    assert [x.strip() for x in lines[1:]] == [
        "W: it is late",
        "E: Unable to locate package foo",
    ]
    assert caught.value.hint is None


def test_an_archive_out_of_reach_is_one_sentence(fake, tmp_path):
    fake(
        "mmdebstrap",
        'echo "Err:1 http://deb.test trixie InRelease"\n'
        "echo \"E: Failed to fetch http://deb.test/InRelease  Temporary failure resolving 'deb.test'\"\n"
        'echo "E: apt-get update failed"; exit 25',
    )

    with pytest.raises(ToolFailedError) as caught:
        archive.mmdebstrap(["mmdebstrap"], env={}, log=tmp_path / "log", task=Notes())

    assert caught.value.message == (
        "cannot fetch `http://deb.test/InRelease` from the package archive: "
        "Temporary failure resolving 'deb.test'"
    )
    assert "network" in caught.value.hint


#: Runs the command after `--`, and of the namespace's script only what comes after it.
UNSHARE = """
echo "$@" >>{log}
while [ "$1" != -- ]; do shift; done
shift 5
exec "$@"
"""


@pytest.fixture
def unshare(fake, tmp_path):
    fake("unshare", UNSHARE.format(log=tmp_path / "unshare.log"))
    fake("qemu-aarch64-static", "exit 1")
    fake("newuidmap", "exit 1")
    return tmp_path / "unshare.log"


@pytest.mark.parametrize(("uid", "mapped"), [(0, False), (1000, True)])
def test_the_namespace(unshare, monkeypatch, tmp_path, uid, mapped):
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(namespace.platform, "machine", lambda: "x86_64")

    prefix = namespace.prefix()

    done = subprocess.run([*prefix, "echo", "a b"], capture_output=True, text=True, check=True)
    assert done.stdout == "a b\n"
    flags = unshare.read_text().split(" -- ")[0].split()
    assert ("--map-root-user" in flags, "--map-auto" in flags) == (mapped, mapped)
    assert {"--mount", "--pid", "--kill-child"} <= set(flags)
    assert f":{tmp_path}/bin/qemu-aarch64-static:F" in prefix[-1]


@pytest.mark.parametrize(
    ("uid", "machine", "wanted"),
    [
        (0, "x86_64", ("qemu-aarch64-static",)),
        (1000, "x86_64", ("newuidmap", "qemu-aarch64-static")),
        (0, "aarch64", ()),
        (1000, "aarch64", ("newuidmap",)),
    ],
)
def test_what_the_namespace_needs(monkeypatch, uid, machine, wanted):
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(namespace.platform, "machine", lambda: machine)

    assert namespace.tools() == wanted


def test_an_arm64_host_emulates_nothing(unshare, monkeypatch):
    monkeypatch.setattr(namespace.platform, "machine", lambda: "aarch64")

    prefix = namespace.prefix()

    assert "binfmt" not in " ".join(prefix)


@pytest.mark.parametrize(
    ("uid", "status", "words"),
    [
        (0, 1, ("does not allow a mount namespace", "SYS_ADMIN")),
        (0, 125, ("cannot run arm64 programs", "binfmt_misc")),
        (1000, 1, ("user namespaces do not allow", "/etc/subuid")),
        (1000, 125, ("user namespaces do not allow", "/etc/subuid")),
    ],
)
def test_what_the_host_lacks(  # noqa: PLR0917 -- fixtures
    fake, unshare, monkeypatch, uid, status, words
):
    fake("unshare", f"echo 'unshare: Operation not permitted' >&2; exit {status}")
    monkeypatch.setattr(os, "geteuid", lambda: uid)

    with pytest.raises(MissingToolError, match=words[0]) as caught:
        namespace.prefix()

    assert "unshare: Operation not permitted" in caught.value.message
    assert words[1] in caught.value.hint


def test_a_user_without_subordinate_ids(fake, unshare, monkeypatch):
    fake("unshare", "echo 'unshare: no line matching user \"ada\" in /etc/subuid' >&2; exit 1")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(MissingToolError, match="you have no subordinate ids") as caught:
        namespace.prefix()

    assert "usermod --add-subuids" in caught.value.hint


def test_no_emulator(unshare, monkeypatch, tmp_path):
    (tmp_path / "bin/qemu-aarch64-static").unlink()
    monkeypatch.setattr(namespace.platform, "machine", lambda: "x86_64")
    tools = ":".join([str(tmp_path / "bin"), "/nowhere"])
    monkeypatch.setenv("PATH", tools)
    monkeypatch.setattr("piimage.run._SBIN", ())

    with pytest.raises(MissingToolError, match="qemu-aarch64-static") as caught:
        namespace.prefix()

    assert "qemu-user-static" in caught.value.hint


#: Makes the tree in JSON at its place, as mmdebstrap is asked to; the native tools are an empty one.
MMDEBSTRAP = """
import base64, json, os, pathlib, sys
if sys.argv[1:] == ["--version"]:
    print("mmdebstrap 1.5.7")
    sys.exit(0)
with open({log!r}, "a") as log:
    json.dump([sys.argv[1:], {{k: os.environ.get(k) for k in ("QEMU_CPU", "INITRD", "NATIVE_TOOLS")}}], log)
    log.write("\\n")
places = [a for a in sys.argv[1:] if a.startswith("/")]
root = pathlib.Path(places[0])
root.mkdir()
if "--variant=extract" in sys.argv:
    sys.exit(0)
if {fail!r}:
    print("E: it does not work today")
    sys.exit(25)
for name, (kind, data) in json.load(open({tree!r})).items():
    path = root / name.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "dir":
        path.mkdir(exist_ok=True)
    elif kind == "link":
        path.symlink_to(data)
    else:
        path.write_bytes(base64.b64decode(data))
print("I: success in 0.1 seconds")
"""


def tree_of(initramfs):
    """What mmdebstrap would leave, with traces of the machine that ran it."""
    nodes = {
        **ROOT,
        "/etc/fstab": Node(debian.FILES["etc/fstab"].encode()),
        "/etc/machine-id": Node(b"0123456789abcdef0123456789abcdef\n"),
        "/etc/ssh/ssh_host_ed25519_key": Node(b"private"),
        "/etc/resolv.conf": Node(b"nameserver 192.0.2.1\n"),
        "/var/lib/dbus/machine-id": Node(b"0123456789abcdef0123456789abcdef\n"),
        "/var/log/dpkg.log": Node(b"log\n"),
        "/var/lib/apt/lists/deb.test_Packages": Node(b"Package: x\n"),
        "/var/cache/apt/archives/x.deb": Node(b"!<arch>\n"),
        "/tmp/leftover": Node(b"x"),
        "/var/tmp": Node(None),
        "/run/leftover": Node(b"x"),
        "/vmlinuz": Node("boot/vmlinuz-6.12"),
        "/initrd.img": Node("boot/initrd.img-6.12"),
        "/boot/firmware/config.txt": Node(b"arm_64bit=1\n"),
        "/boot/firmware/cmdline.txt": Node(b"root=LABEL=RASPIROOT\n"),
        "/boot/firmware/start4.elf": Node(bytes(1000)),
        "/boot/firmware/vmlinuz-6.12": Node(b"kernel"),
        "/boot/firmware/overlays/x.dtbo": Node(b"\xd0\x0d\xfe\xed"),
    }
    if initramfs is not None:
        nodes["/boot/firmware/initrd.img-6.12"] = Node(initramfs)
    nodes.pop("/lib", None)
    kinds = {bytes: "file", str: "link", type(None): "dir"}
    return {
        path: (
            kinds[type(n.data)],
            base64.b64encode(n.data).decode() if isinstance(n.data, bytes) else n.data,
        )
        for path, n in nodes.items()
    }


def packed(content):
    early = b"070701" + b"0" * 100 + b"TRAILER!!!" + bytes(10)
    done = subprocess.run(["zstd", "-qc"], input=content, capture_output=True, check=True)
    return early + done.stdout


GOOD = packed(b"cpio " + ARM64 + b" more")


@dataclass(frozen=True)
class Workshop:
    """Called, it sets what mmdebstrap makes; `log` has what that was asked."""

    fake: Callable[..., object]
    log: Path
    tree: Path

    def __call__(self, initramfs=GOOD, *, fail=False):
        self.tree.write_text(json.dumps(tree_of(initramfs)))
        script = MMDEBSTRAP.format(log=str(self.log), tree=str(self.tree), fail=fail)
        self.fake("mmdebstrap", script, sys.executable)


@pytest.fixture
def workshop(fake, unshare, tmp_path, monkeypatch):
    """Everything that `make` needs, small."""
    monkeypatch.setattr(debian, "FIRMWARE_SIZE", 40 * MIB)
    monkeypatch.setattr(debian, "SPARE", 16 * MIB)
    monkeypatch.setattr(make, "_ROOM", 100 * MIB)
    fake("apt-get", f"echo '{DEBIAN}'")
    made = Workshop(fake, tmp_path / "mmdebstrap.log", tmp_path / "tree.json")
    made()
    return made


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache")


def left(store):
    bases = store.root / "bases"
    return [*(bases.iterdir() if bases.is_dir() else ()), *(store.root / "scratch").iterdir()]


def test_a_base_is_made(workshop, store, tmp_path):
    base = make.make("debian-13", store=store, progress=Quiet())

    assert base.facts.os.codename == "trixie"
    assert base.facts.mounts == {"/": 2, "/boot/firmware": 1}
    assert (base.origin.kind, base.tools["mmdebstrap"]) == ("made", "1.5.7")
    assert base.tools["mke2fs"].startswith("1.")
    table = read_table(base.path)
    firmware, root = table.partitions
    assert (firmware.start, firmware.type, firmware.filesystem.label) == (
        4 * MIB,
        "0c",
        "RASPIFIRM",
    )
    assert (root.start % (4 * MIB), root.type, root.filesystem.label) == (0, "83", "RASPIROOT")
    ext4.check(base.path, root.start)
    fat.check(base.path, firmware.start)
    assert left(store) == [base.path.parent]


def test_the_image_holds_the_tree_and_nothing_of_the_host(workshop, store):
    base = make.make("debian-13", store=store, progress=Quiet())
    firmware, root = base.facts.table.partitions
    tree = ext4.list_tree(base.path, root.start, ["/"])
    texts = ext4.read_files(base.path, root.start, ["/etc/machine-id", "/usr/lib/os-release"])

    assert texts["/etc/machine-id"] == b"uninitialized\n"
    assert tree["/etc/machine-id"].mode == 0o444
    assert b"VERSION_CODENAME=trixie" in texts["/usr/lib/os-release"]
    assert tree["/etc/resolv.conf"].target == "../run/systemd/resolve/stub-resolv.conf"
    gone = {
        "/etc/ssh/ssh_host_ed25519_key", "/var/lib/dbus/machine-id", "/var/log/dpkg.log", "/tmp/leftover",
        "/run/leftover", "/var/lib/apt/lists/deb.test_Packages", "/var/cache/apt/archives/x.deb", "/vmlinuz",
        "/initrd.img", "/boot/firmware/config.txt",
    }  # fmt: skip
    assert gone & set(tree) == set()
    assert "/boot/firmware" in tree
    names = fat.list_tree(base.path, firmware.start)
    assert {"/config.txt", "/start4.elf", "/initrd.img-6.12", "/overlays/x.dtbo"} <= set(names)


def test_what_mmdebstrap_is_asked(workshop, store):
    make.make("debian-13", store=store, progress=Quiet())

    asked = [json.loads(line) for line in workshop.log.read_text().splitlines()]
    argv, env = asked[-1]
    assert env["QEMU_CPU"] == "cortex-a57"
    assert env["INITRD"] == "No"
    assert "--architectures=arm64" in argv
    assert argv[-2:] == [
        "deb http://deb.test/debian/ trixie main non-free-firmware",
        "deb http://deb.test/debian/ trixie-updates main non-free-firmware",
    ]
    hooks = [a.split("=", 1) for a in argv if "-hook=" in a]
    if env["NATIVE_TOOLS"]:
        words = [
            (kind, word)
            for kind, text in hooks
            for word in ("enter", "swap", "initramfs.sh", "cp -r", "leave")
            if word in text
        ]
        assert words == [
            ("--extract-hook", "enter"), ("--essential-hook", "swap"), ("--essential-hook", "cp -r"),
            ("--customize-hook", "swap"), ("--customize-hook", "initramfs.sh"), ("--customize-hook", "leave"),
        ]  # fmt: skip


def test_a_base_that_is_here_is_not_made_again(workshop, store):
    first = make.make("debian-13", store=store, progress=Quiet())
    count = len(workshop.log.read_text().splitlines())

    again = make.make("debian-13", store=store, progress=Quiet())

    assert again == first
    assert len(workshop.log.read_text().splitlines()) == count


def test_force_makes_it_again_with_the_tools_that_are_here(workshop, store):
    make.make("debian-13", store=store, progress=Quiet())
    count = len(workshop.log.read_text().splitlines())

    make.make("debian-13", store=store, progress=Quiet(), force=True)

    assert len(workshop.log.read_text().splitlines()) == count + 1


def test_a_failure_leaves_the_store_as_it_was(workshop, store):
    workshop(fail=True)

    with pytest.raises(ToolFailedError, match="it does not work today"):
        make.make("debian-13", store=store, progress=Quiet())

    assert left(store) == []


def test_a_failure_keeps_the_base_that_was_there(workshop, store):
    first = make.make("debian-13", store=store, progress=Quiet())
    workshop(fail=True)

    with pytest.raises(ToolFailedError):
        make.make("debian-13", store=store, progress=Quiet(), force=True)

    assert store.base("debian-13") == first


@pytest.mark.parametrize(
    ("initramfs", "words"),
    [
        (packed(b"cpio " + X86 + b" more"), "this machine's architecture"),
        (b"early " + X86 + GOOD, "this machine's architecture"),
        (b"not packed at all", "cannot be looked into"),
        (None, "no initramfs"),
    ],
)
def test_an_initramfs_that_would_not_boot(workshop, store, initramfs, words):
    workshop(initramfs)

    with pytest.raises(ToolFailedError, match=words):
        make.make("debian-13", store=store, progress=Quiet())

    assert left(store) == []


@pytest.mark.parametrize(
    "tool",
    [
        "mmdebstrap",
        "arch-test",
        "mke2fs",
        "mkfs.vfat",
        "mcopy",
        "sfdisk",
        "zstd",
        "newuidmap",
        "qemu-aarch64-static",
    ],
)
def test_a_missing_tool_is_told_before_any_work(workshop, store, monkeypatch, tool):
    monkeypatch.setattr("piimage.run.available", lambda name: name != tool)
    monkeypatch.setattr(namespace, "tools", lambda: ("newuidmap", "qemu-aarch64-static"))

    with pytest.raises(MissingToolError, match=f"^`{tool}` is not installed$"):
        make.make("debian-13", store=store, progress=Quiet())

    assert not workshop.log.exists()


def test_all_missing_tools_are_told_at_once(workshop, store, monkeypatch):
    monkeypatch.setattr("piimage.run.available", lambda name: name not in ("mcopy", "zstd"))

    with pytest.raises(MissingToolError, match="`mcopy`, `zstd` are not installed") as caught:
        make.make("debian-13", store=store, progress=Quiet())

    assert caught.value.hint == "on Debian: `apt-get install mtools zstd`"


def test_no_room(workshop, store, monkeypatch):
    monkeypatch.setattr(make, "_ROOM", 1 << 60)

    with pytest.raises(WriteFailedError, match="are needed") as caught:
        make.make("debian-13", store=store, progress=Quiet())

    assert "PIIMAGE_CACHE" in caught.value.hint
    assert not workshop.log.exists()


def test_a_name_that_cannot_be_made(store):
    with pytest.raises(PiimageError, match="not a base that can be made"):
        make.make("debian-31", store=store, progress=Quiet())
