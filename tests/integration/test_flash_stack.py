"""`piimage flash --all` as a person goes through a stack of cards: one loop device is the reader."""

from __future__ import annotations

import fcntl
import json
import os
import queue
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from tiny_card import SIZE, dirty_card, make_build, make_tiny

from piimage import resolve
from piimage.disk.table import read_table
from piimage.state import state

ROOT = Path(__file__).resolve().parents[2]
#: Partitions end at multiples of it: erase blocks of cards are as large.
GRANULE = 4 << 20
#: linux/loop.h
LOOP_CTL_ADD, LOOP_CTL_REMOVE = 0x4C80, 0x4C81


def _run(*argv):
    return subprocess.run([str(w) for w in argv], check=True, capture_output=True, text=True).stdout


class Reader:
    """A loop device of a fixed name, into which cards are put."""

    def __init__(self, node: Path) -> None:
        self.node = node

    def put_in(self, card: Path) -> None:
        _run("losetup", self.node, card)

    def take_out(self) -> None:
        """Like a hand: it waits until the light has stopped blinking."""
        backing = Path("/sys/block", self.node.name, "loop")
        subprocess.run(["losetup", "--detach", self.node], check=False, capture_output=True)
        deadline = time.monotonic() + 20
        while backing.exists() and time.monotonic() < deadline:
            time.sleep(0.05)


@pytest.fixture
def reader():
    """A loop device of our own: `losetup --find` takes the lowest that is free, and never this one."""
    control = os.open("/dev/loop-control", os.O_RDWR)
    number = next(n for n in range(100, 200) if not Path(f"/dev/loop{n}").exists())
    fcntl.ioctl(control, LOOP_CTL_ADD, number)
    made = Reader(Path(f"/dev/loop{number}"))
    try:
        yield made
    finally:
        made.take_out()
        fcntl.ioctl(control, LOOP_CTL_REMOVE, number)
        os.close(control)


@pytest.fixture
def home(tmp_path):
    builds = {name: f"b-{name}" for name in ("node0", "node1", "node2")}
    make_build(tmp_path, make_tiny(tmp_path / "tiny.img"), builds, count=3)
    return tmp_path


@pytest.fixture
def cluster(home):
    loaded = resolve.load(home / "cluster.yaml", env={}, check_secrets=False).cluster
    state.init(loaded)
    return loaded


class Talk:
    """A running `piimage flash --all`: what it says, line by line."""

    def __init__(self, child) -> None:
        self.child, self.said = child, []
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.child.stderr:
            self._lines.put(line.rstrip("\n"))

    def until(self, words: str) -> str:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                line = self._lines.get(timeout=0.2)
            except queue.Empty:
                assert self.child.poll() is None, "\n".join(self.said)
                continue
            self.said.append(line)
            if words in line:
                return line
        pytest.fail(f"it did not say {words!r}:\n" + "\n".join(self.said))

    def end(self) -> int:
        code = self.child.wait(60)
        self._reader.join(5)
        while not self._lines.empty():
            self.said.append(self._lines.get())
        return code


@contextmanager
def flash(home, reader, *options, said=""):
    argv = [sys.executable, "-m", "piimage", "flash", reader.node, "--all"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PIIMAGE_CACHE": str(home / "cache")}
    with subprocess.Popen(
        [*map(str, argv), "--allow", "not-removable", *options],
        cwd=home, env=env, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as child:  # fmt: skip
        child.stdin.write(said)
        child.stdin.flush()
        try:
            yield Talk(child)
        finally:
            child.kill()


def recorded(cluster):
    known = state.open_state(cluster, create=False).cards()
    return {record.node: record.build for record in known}


def test_a_stack_of_cards_with_a_refused_and_a_bad_one_between(home, cluster, reader):
    cards = [dirty_card(home / f"card{n}.img", SIZE) for n in range(3)]
    small = dirty_card(home / "small.img", 1 << 20)

    with flash(home, reader, said="y\nn\ny\n") as talk:
        talk.until("node0 comes next, 3 to go: put its card in")
        reader.put_in(cards[0])
        talk.until("take it out, and write `node0` on it")
        assert recorded(cluster) == {"node0": "b-node0"}
        talk.until("node1 comes next, 2 to go")
        reader.take_out()
        reader.put_in(cards[1])
        talk.until("not confirmed, so nothing was written")
        talk.until("put another card in for node1")
        reader.take_out()
        reader.put_in(small)
        talk.until("too-small")
        talk.until("put another card in for node1")
        reader.take_out()
        reader.put_in(cards[2])
        talk.until("take it out, and write `node1` on it")
        talk.until("node2 comes next, 1 to go")
        talk.child.terminate()
        assert talk.end() == 130

    assert recorded(cluster) == {"node0": "b-node0", "node1": "b-node1"}
    assert cards[1].read_bytes() == dirty_card(home / "again.img", SIZE).read_bytes()
    assert cards[0].read_bytes() != cards[1].read_bytes()
    reader.take_out()

    with flash(home, reader, "--json", said="y\n") as talk:  # it goes on where it stopped
        first = json.loads(talk.child.stdout.readline())
        assert (first["event"], first["node"], first["left"]) == ("next", "node2", 1)
        reader.put_in(cards[1])
        events = [json.loads(line) for line in talk.child.stdout]
        assert talk.end() == 0, talk.said
    assert [e["event"] for e in events if e["event"] in ("done", "label", "end")] == [
        "done",
        "label",
        "end",
    ]
    assert set(recorded(cluster)) == {"node0", "node1", "node2"}


def test_one_of_them_again(home, cluster, reader):
    card = dirty_card(home / "card.img", SIZE)
    with flash(home, reader, "--node", "2", said="y\n") as talk:
        talk.until("node2 comes next, 1 to go")
        reader.put_in(card)
        talk.until("take it out, and write `node2` on it")
        talk.until("every node of `abacus` that was asked for has its card")
        assert talk.end() == 0
    assert recorded(cluster) == {"node2": "b-node2"}


def test_each_root_fills_its_card(home, cluster, reader):
    """Cards of two sizes, with what holds their images taken from the cache anew for each."""
    sizes = {"node0": 9 * SIZE, "node1": 12 * SIZE}
    cards = {name: dirty_card(home / f"{name}.img", size) for name, size in sizes.items()}
    with flash(home, reader, "--grow", "--node", "0", "--node", "1", said="y\ny\n") as talk:
        for name, card in cards.items():
            talk.until(f"{name} comes next")
            reader.put_in(card)
            talk.until(f"take it out, and write `{name}` on it")
            reader.take_out()
        assert talk.end() == 0

    for name, card in cards.items():
        root = max(read_table(card).partitions, key=lambda part: part.start)
        assert root.start + root.size == sizes[name] // GRANULE * GRANULE
        place = f"{card}?offset={root.start}"
        _run("e2fsck", "-fn", place)
        assert f"Block count:              {root.size // 1024}" in _run("dumpe2fs", "-h", place)
    assert recorded(cluster) == {"node0": "b-node0", "node1": "b-node1"}


def test_a_node_without_a_build_ends_it_before_a_card_is_asked_for(home, cluster, reader):
    (home / "dist" / "abacus" / "manifest.json").unlink()
    with flash(home, reader) as talk:
        talk.until("error: nothing was built in")
        assert talk.end() == 1


def test_without_a_question_only_where_the_name_is_exact(home, cluster, reader):
    """Any card may get this reader's name, so it is said at once: no card that comes would be the right one."""
    card = dirty_card(home / "card.img", SIZE)
    before = card.read_bytes()
    reader.put_in(card)
    with flash(home, reader, "--yes") as talk:
        assert talk.end() == 2
    assert "`--all --yes` needs the reader's path in /dev/disk/by-id" in " ".join(talk.said)
    assert card.read_bytes() == before
