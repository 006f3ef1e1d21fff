"""`piimage flash` onto regular files, as the user types it."""

from __future__ import annotations

import errno
import fcntl
import gzip
import io
import json
import os
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import current_thread
from threading import enumerate as enumerate_threads

import pytest
from tiny_card import BOOT, SIZE, dirty_card, make_build

from piimage import resolve
from piimage.bases.cache import Cache
from piimage.cli.main import _Interrupt, main
from piimage.disk import fat
from piimage.disk.slots import apply_patches
from piimage.disk.sparse import copy_sparse
from piimage.disk.table import read_table
from piimage.flash import arrival, several
from piimage.flash.candidates import Candidate
from piimage.flash.device import Device
from piimage.flash.guard import examine
from piimage.flash.payload import open_payload
from piimage.flash.receipt import next_node, remember
from piimage.flash.several import Job
from piimage.flash.sources import Source
from piimage.host import by_sudo
from piimage.state import cards, state
from piimage.state.cards import CardRecord

SIGNAL = signal.signal  # which must do nothing for `main` in this process


@dataclass(frozen=True)
class Done:
    returncode: int | str
    stdout: str
    stderr: str

    @property
    def events(self):
        return [json.loads(line) for line in self.stdout.splitlines()]


@pytest.fixture
def home(tmp_path, tiny):
    make_build(tmp_path, tiny, {name: f"build-{name}" for name in ("node1", "node2")})
    return tmp_path


@pytest.fixture
def piimage(home, monkeypatch, capsys):
    """Runs `piimage flash` there; `said` is what the user answers."""
    monkeypatch.setenv("PIIMAGE_CACHE", str(home / "cache"))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.chdir(home)

    def run(*arguments, said=""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(said))
        monkeypatch.setattr(sys, "argv", ["piimage", "flash", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        out = capsys.readouterr()
        return Done(left.value.code or 0, out.out, out.err)

    return run


@pytest.fixture
def card(home):
    return dirty_card(home / "card.img", SIZE)


def test_a_node_is_written_once_the_question_is_answered(piimage, card):
    done = piimage(card, "--node", "1", said="y\n")

    assert done.returncode == 0, done.stderr
    assert "becomes: node1 of abacus, build build-node1" in done.stderr
    assert "everything on it is lost" in done.stderr
    assert "is node1 of abacus" in done.stderr
    assert card.read_bytes()[0x1B8 : 0x1B8 + 4] == b"\1\2\3\4"
    assert done.stdout == ""


@pytest.mark.parametrize("answer", ["", "n\n", "\n", "node1\n"])
def test_any_other_answer_writes_nothing(piimage, card, answer):
    before = card.read_bytes()

    done = piimage(card, "--node", "1", said=answer)

    assert done.returncode == 5
    assert "not confirmed, so nothing was written" in done.stderr
    assert card.read_bytes() == before


def test_neither_secrets_nor_bases_of_the_builder_are_needed(piimage, card, home):
    text = (home / "cluster.yaml").read_text()
    text = text.replace("debian-13", "imported-by-somebody").replace(
        "10.9.1.1}\n", "10.9.1.1}\n  wifi: {ssid: lab, psk: 'env:NOT_SET_HERE', country: IT}\n"
    )
    (home / "cluster.yaml").write_text(text)

    done = piimage(card, "--node", "1", "--yes")

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("option", "words"),
    [("", ""), ("--update", "what differs in "), ("--resume", "what is left of ")],
)
def test_how_much_will_be_written_is_as_it_is_done(piimage, card, option, words):
    done = piimage(card, "--node", "1", "--dry-run", *filter(None, [option]))

    _, found, amount = done.stdout.partition(f"build build-node1\n  {words}")
    assert found
    assert amount[0].isdigit()
    assert " to write; everything on it is lost" in amount


def test_a_file_that_is_not_there_yet_has_no_size(piimage):
    done = piimage("new.img", "--node", "1", "--dry-run")

    assert done.stdout.splitlines()[0].endswith("new.img`: an empty file")


def test_a_dry_run_tells_and_writes_nothing(piimage, card):
    before = card.read_bytes()

    done = piimage(card, "--node", "1", "--dry-run")

    assert done.returncode == 0
    assert "becomes: node1 of abacus" in done.stdout
    assert card.read_bytes() == before


def test_events_for_programs(piimage, card):
    done = piimage(card, "--node", "1", "--yes", "--json")

    assert done.returncode == 0, done.stderr
    assert {event["node"] for event in done.events} == {"node1"}
    assert [e["phase"] for e in done.events if e["event"] == "phase"] == [
        "write",
        "verify",
        "finish",
    ]
    last = done.events[-1]
    assert last["event"] == "done"
    assert last["written"] == last["checked"] > 0
    assert last["build"] == "build-node1"


def test_two_cards_at_once_and_an_update_of_both(piimage, home, card):
    other = home / "other.img"
    arguments = ["--node", f"1={card}", "--node", f"node2={other}", "--yes", "--json"]

    done = piimage(*arguments)

    assert done.returncode == 0, done.stderr
    ended = {e["card"]: e["node"] for e in done.events if e["event"] == "done"}
    assert ended == {str(card): "node1", str(other): "node2"}
    again = piimage(*arguments, "--update")
    assert [e["unchanged"] for e in again.events if e["event"] == "done"] == [True, True]


def test_one_of_two_cards_fails_and_the_other_is_written(piimage, home, card, monkeypatch):
    true = several.write_card

    def write(fd, size, payload, **options):
        if options["title"].startswith("node2"):
            raise several.PiimageError("broken")
        return true(fd, size, payload, **options)

    monkeypatch.setattr(several, "write_card", write)
    other = home / "other.img"

    done = piimage("--node", f"1={card}", "--node", f"2={other}", "--yes", "--json")

    assert done.returncode == 8
    assert f"1 of 2 cards failed: {other}" in done.stderr
    assert {e["card"]: e["event"] for e in done.events}[str(other)] == "failed"
    assert card.read_bytes()[510:512] == b"\x55\xaa"


@pytest.mark.parametrize("begun", [True, False])
def test_an_interrupted_write_says_what_the_card_is(piimage, card, monkeypatch, begun):
    def write(*_, begin, **__):
        if begun:
            begin()
        raise KeyboardInterrupt

    monkeypatch.setattr(several, "write_card", write)

    done = piimage(card, "--node", "1", "--yes")

    assert done.returncode == 130
    assert ("has no partition table" in done.stderr) is begun
    assert ("--resume" in done.stderr) is begun
    assert ("nothing was written" in done.stderr) is not begun


def test_two_who_interrupt_do_not_outrun_a_card_that_stops(piimage, card, monkeypatch):
    """A terminal that is closed sends SIGHUP twice: from the kernel, and from the shell."""
    stopped = []

    def write(*_, begin, stop, **__):
        begin()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(30)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1.2)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.3)
        stopped.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(several, "write_card", write)

    try:
        SIGNAL(signal.SIGINT, _Interrupt())
        done = piimage(card, "--node", "1", "--yes")
    finally:
        SIGNAL(signal.SIGINT, signal.default_int_handler)

    assert (done.returncode, stopped) == (130, [1])
    assert "the card is not finished and has no partition table" in done.stderr


def test_of_several_cards_that_are_interrupted_each_is_told(piimage, home, card, monkeypatch):
    true = several.write_card

    def write(fd, size, payload, **options):
        if options["title"].startswith("node1"):
            return true(fd, size, payload, **options)
        options["begin"]()
        for thread in enumerate_threads():
            if "(work)" in thread.name and thread is not current_thread():
                thread.join(60)
        os.kill(os.getpid(), signal.SIGINT)
        assert options["stop"].wait(30)
        raise KeyboardInterrupt

    monkeypatch.setattr(several, "write_card", write)
    other = home / "other.img"
    done = piimage("--node", f"1={card}", "--node", f"2={other}", "--yes")

    assert done.returncode == 130
    assert f"interrupted: `{other}` is not finished and has no partition table" in done.stderr
    assert f"; `{card}` is whole and proven" in done.stderr


@pytest.mark.parametrize("last", [False, True])
def test_events_that_nobody_can_take(piimage, card, monkeypatch, last):
    """The disk that stdout goes to is full: not the cache, and it is told what the card is now."""

    class Full(io.StringIO):
        def write(self, text):
            if not last or '"done"' in text[:20]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return len(text)

        def flush(self):
            pass

    monkeypatch.setattr(sys, "stdout", Full())

    done = piimage(card, "--node", "1", "--yes", "--json")

    assert done.returncode == 7
    left = "the card is whole and proven" if last else "the card is left without a partition table"
    assert f"cannot write events to stdout: no space left on device; {left}" in done.stderr
    assert "cache" not in done.stderr
    assert (card.read_bytes()[510:512] == b"\x55\xaa") is last


def test_a_packed_image_that_is_damaged_says_what_the_card_is_now(piimage, card, home, tiny):
    packed = home / "image.img.gz"
    data = bytearray(gzip.compress(tiny.read_bytes()))
    data[-6] ^= 1  # the checksum of all of it
    packed.write_bytes(data)

    done = piimage(card, "--image", packed, "--yes")

    assert done.returncode == 1
    first, hint, *_ = done.stderr.splitlines()[-2:]
    assert first.startswith("error: `image.img.gz` is damaged: ")
    assert first.endswith("; the card is left without a partition table")
    assert hint == "hint: once that is put right, write the card again"
    assert not any(card.read_bytes()[:4096])


def test_two_cards_of_one_image_that_is_wrong_are_each_told_once(piimage, home, card):
    path = home / "dist" / "abacus" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["variants"]["worker"]["sha256"] = "0" * 64
    path.write_text(json.dumps(manifest))

    done = piimage("--node", f"1={card}", "--node", f"2={home / 'other.img'}", "--yes", "--json")

    told = [event["message"] for event in done.events if event["event"] == "failed"]
    assert done.returncode == 4
    assert [words.count("the card is left without a partition table") for words in told] == [1, 1]


@pytest.mark.parametrize("option", ["--json", "--quiet", "--no-option"])
def test_who_waits_for_another_flash_is_told(piimage, home, card, option, monkeypatch):
    cluster = resolve.load(home / "cluster.yaml", env={}).cluster
    state.init(cluster).record_card(
        CardRecord(node="node0", build="b", variant="v", written="", size=1)
    )
    true, refused = fcntl.flock, []

    def flock(fd, kind):
        name = Path(f"/proc/self/fd/{fd}").readlink().name
        if name.startswith("next-card-") and not refused:
            refused.append(name)
            raise BlockingIOError
        return true(fd, kind)

    monkeypatch.setattr(fcntl, "flock", flock)
    options = [] if option == "--no-option" else [option]

    done = piimage(card, *options, said="y\n")

    assert done.returncode == 0, done.stderr
    where = done.stdout if option == "--json" else done.stderr
    assert where.count("waiting for another piimage to end") == 1
    if option == "--json":
        assert done.events[0]["event"] == "wait"


def test_names_cannot_draw_on_the_terminal(piimage, home):
    """Neither of a card that is asked about, nor of one that is written, nor of one that is refused."""
    name = "a\n\x1b[2Jb\udcff"
    shown = "a\\n\\x1b[2Jb\\udcff"

    asked = piimage(name, "--node", "1", "--dry-run")
    done = piimage(name, "--node", "1", "--yes")
    refused = piimage(f"none/{name}/x", "--node", "1", "--yes")

    for out in (asked.stdout, done.stderr, refused.stderr):
        assert shown in out
        assert "\x1b" not in out
        assert "\nb" not in out
    assert done.returncode == 0
    assert (home / name).stat().st_size == SIZE


def test_an_image_of_anybody(piimage, card, tiny):
    done = piimage(card, "--image", tiny, "--yes", "--quiet")

    assert done.returncode == 0, done.stderr
    assert card.read_bytes()[:512] == tiny.read_bytes()[:512]
    assert open_payload(tiny).size == SIZE


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name the card"),
        (["--node", "1"], "--node 3=/dev/sdb"),
        (["card.img", "--node", "1", "--node", "2"], "one card becomes one node"),
        (["card.img", "--node", "1=card.img"], "takes no other target"),
        (["card.img", "--node", "1", "--image", "x.img"], "two sources"),
        (["card.img", "--node", "1", "--resume", "--update"], "two ways"),
        (["card.img", "--node", "9"], "has no node `9`"),
        (["--node", "1=a.img", "--node", "node1=b.img"], "both to become node1"),
        (["--all", "--yes"], "needs the reader's path in /dev/disk/by-id"),
        (["/dev/sdx", "--all", "--yes"], "needs the reader's path in /dev/disk/by-id"),
    ],
)
def test_what_does_not_fit_together(piimage, card, arguments, words):
    done = piimage(*arguments)

    assert done.returncode == 2
    assert words in " ".join(done.stderr.split())


def test_a_stack_ends_where_nobody_answers(piimage, home, card, monkeypatch):
    """It would wait for cards without end, and decline each of them."""
    cluster = resolve.load(home / "cluster.yaml", env={}).cluster
    state.init(cluster)
    found = Candidate(examine(card), None, readable=True)
    waits = []

    def come(_arrivals, _notice):
        waits.append(1)
        assert len(waits) < 3, "it waits on"
        return found

    monkeypatch.setattr(arrival.Arrivals, "next", come)

    declined = piimage("--all", "--node", "1", said="n\n")

    assert declined.returncode == 5
    assert len(waits) == 2
    assert declined.stderr.count("not confirmed, so nothing was written") == 2


@pytest.mark.parametrize("kind", ["pipe", "directory"])
def test_an_image_is_a_file(piimage, card, home, kind):
    """Nobody writes to the pipe: who opened it would wait for ever."""
    path = home / "source"
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    before = card.read_bytes()

    done = piimage(card, "--image", path, "--yes")

    assert done.returncode == 1
    assert f"`{path}` is a {kind}" in done.stderr
    assert card.read_bytes() == before


def test_the_same_card_twice(piimage, card):
    done = piimage("--node", f"1={card}", "--node", f"2={card}", "--yes")

    assert done.returncode == 5
    assert "are the same card" in done.stderr


def test_another_serial_number_is_refused(piimage, card):
    done = piimage(card, "--node", "1", "--yes", "--serial", "0x12")

    assert done.returncode == 5
    assert "refused (serial)" in done.stderr


def test_a_node_that_was_not_built(piimage, card):
    done = piimage(card, "--node", "4", "--yes")

    assert done.returncode == 1
    assert "piimage build --node node4" in done.stderr


def test_without_a_node_it_is_the_next_one_that_has_no_card(piimage, card, home):
    cluster = resolve.load(home / "cluster.yaml", env={}).cluster
    state.init(cluster)
    nodes = {node.name: node for node in cluster.nodes}
    reader = Device(
        path=home / "sdb", node=home / "sdb", kind="disk", name="sdb", size=8 << 30,
        serial="0x12", transport="mmc", model="SC64G",
    )  # fmt: skip
    source = Source("t", open_payload(card_image(home)), (), "node0", "b0", "v0")

    remember(Job(reader, source), cluster)

    (record,) = state.open_state(cluster).cards()
    assert (record.node, record.build, record.cid) == ("node0", "b0", "0x12")
    assert (record.model, record.size) == ("SC64G", 8 << 30)
    assert next_node(cluster) == nodes["node1"]
    assert "becomes: node1 of abacus" in piimage(card, "--dry-run").stdout
    for name in nodes:
        remember(Job(replace(reader, serial=name), replace(source, node=name)), cluster)
    assert "every node of `abacus` has a card" in piimage(card).stderr


def test_a_stack_that_is_done_names_the_cards_of_an_older_build(piimage, home, monkeypatch):
    """Nodes that were not built in this directory cannot be compared with anything.

    Which have a card and which have an old one is said of the same moment: the state is read once.
    """
    monkeypatch.setenv("SUDO_UID", "1000")
    reads = []
    read = cards.read

    def noted(path):
        reads.append(path)
        return read(path)

    monkeypatch.setattr(cards, "read", noted)
    made = state.init(resolve.load(home / "cluster.yaml", env={}).cluster)
    for number in range(5):
        build = "build-node1" if number == 1 else "older"
        made.record_card(
            CardRecord(node=f"node{number}", build=build, variant="v1", written="", size=1)
        )
    reads.clear()

    done = piimage("--all", "--json")

    assert done.returncode == 0, done.stderr
    (end, outdated) = done.events
    assert (end["event"], outdated["event"], outdated["nodes"]) == ("end", "outdated", ["node2"])
    assert outdated["message"].endswith(f"`{by_sudo()} flash --all --node node2`")
    assert len(reads) == 1


@pytest.mark.parametrize(("build", "left"), [("build-node2", set()), ("newer", {"node2"})])
def test_a_card_that_is_overwritten_is_forgotten(piimage, home, tiny, build, left):
    """Unless its node has got another card since; a file becomes no card."""
    made = state.init(resolve.load(home / "cluster.yaml", env={}).cluster)
    made.record_card(CardRecord(node="node2", build=build, variant="v1", written="", size=1))
    label = {"cluster": "abacus", "node": "node2", "number": 2, "build": "build-node2"}
    text = json.dumps({**label, "variant": "v1"}).encode()
    copy_sparse(tiny, home / "old.img")
    apply_patches(home / "old.img", fat.stage(tiny, BOOT, {"piimage.json": text}))

    assert piimage(home / "old.img", "--node", "1", said="n\n").returncode == 5
    assert {record.node for record in made.cards()} == {"node2"}
    done = piimage(home / "old.img", "--node", "1", "--eject", said="y\n")

    assert done.returncode == 0, done.stderr
    assert {record.node for record in made.cards()} == left
    assert "old.img cannot let go of the card: take it out" in done.stderr


def test_a_card_that_cannot_be_forgotten_stays_what_it_is(piimage, home, card):
    """Else the state would name a card that is none any more."""
    made = state.init(resolve.load(home / "cluster.yaml", env={}).cluster)
    label = {"cluster": "abacus", "node": "node2", "number": 2, "build": "b", "variant": "v1"}
    text = json.dumps(label).encode()
    copy_sparse(card_image(home), card)
    card.chmod(0o600)
    apply_patches(card, fat.stage(card, BOOT, {"piimage.json": text}))
    before = card.read_bytes()
    (made.path / "cards.json").write_text("damaged")

    done = piimage(card, "--node", "1", "--yes")

    assert done.returncode != 0
    assert "`cards.json` is damaged" in done.stderr.replace(f"{made.path}/", "")
    assert card.read_bytes() == before


def card_image(home):
    return home / "dist" / "abacus" / "variants" / "worker.img"


def test_the_root_fills_the_card_if_that_is_wanted(piimage, card):
    """Found again by `--update`, and grown no further than a file is long."""
    with card.open("r+b") as file:
        file.truncate(9 * SIZE)

    done = piimage(card, "--node", "1", "--grow", "--json", said="y\n")
    again = piimage(card, "--node", "1", "--grow", "--update", "--json", said="y\n")

    assert (done.returncode, again.returncode) == (0, 0), done.stderr + again.stderr
    end = max(p.start + p.size for p in read_table(card).partitions)
    assert end == 9 * SIZE // (4 << 20) * (4 << 20)
    assert again.events[-1]["unchanged"]


@pytest.mark.parametrize("arguments", [["card.img"], ["--all"]])
def test_who_chooses_the_next_node_waits_for_its_turn(piimage, home, card, arguments, monkeypatch):
    """Two terminals that both find node1 without a card would make two of it."""
    made = state.init(resolve.load(home / "cluster.yaml", env={}).cluster)
    held, taken = Cache.lock, []

    @contextmanager
    def lock(cache, name, **how):
        with held(cache, name, **how):
            if name.startswith("next-card-"):
                taken.append(name)
                for number in range(5):  # what the other one has done meanwhile
                    made.record_card(
                        CardRecord(node=f"node{number}", build="b", variant="v", written="", size=1)
                    )
            yield

    monkeypatch.setattr(Cache, "lock", lock)

    done = piimage(*arguments)

    assert len(taken) == 1
    assert "has its card" in done.stderr or "every node of `abacus` has a card" in done.stderr
    assert (
        piimage(card, "--node", "1", said="y\n").returncode == 0
    )  # a node that is named is no choice
    assert len(taken) == 1
