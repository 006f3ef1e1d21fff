"""What a build left, and image files as they come: which bytes they stand for, and that damage is found."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import subprocess
import zipfile
from threading import Event, Timer

import pytest
from tiny_card import MIB, ROOT, SIZE, dirty_card, make_tiny, tiny_patches

from piimage import artifact
from piimage.bases.cache import Cache
from piimage.disk.bmap import mapped_ranges, write_bmap
from piimage.disk.framed import CHUNK, read_layout
from piimage.disk.framing import pack as pack_in_frames
from piimage.disk.slots import apply_patches
from piimage.disk.sparse import copy_sparse, hash_file
from piimage.disk.unframed import FramedContent, open_framed
from piimage.errors import ImageError, PiimageError, VerifyError
from piimage.flash.bmap_file import read_bmap
from piimage.flash.journal import read_journal
from piimage.flash.payload import open_payload
from piimage.flash.ranges import BLOCK, amount, pieces
from piimage.flash.sources import open_sources
from piimage.flash.writer import write_card
from piimage.progress import Quiet
from piimage.stamping import NodeStamp, write_stamp

pytestmark = pytest.mark.processes


@pytest.fixture
def dist(tiny, tmp_path):
    """A build of node3 as variant and stamp."""
    directory = tmp_path / "dist"
    (directory / "stamps").mkdir(parents=True)
    (directory / "variants").mkdir()
    image = directory / "variants" / "worker.img"
    copy_sparse(tiny, image)
    write_stamp(
        directory / "stamps" / "node3.stamp",
        NodeStamp("node3", "v1", "b1", tuple(tiny_patches(tiny))),
    )
    manifest = {
        "version": 1,
        "cluster": "pico5",
        "variants": {
            "worker": {"id": "v1", "image": "variants/worker.img", "sha256": hash_file(image)}
        },
        "nodes": {"node3": {"stamp": "b1", "variant": "v1"}},
    }
    artifact.write_manifest(directory, manifest)
    return directory


@pytest.fixture
def whole(tiny, tmp_path):
    path = tmp_path / "whole.img"
    copy_sparse(tiny, path)
    path.chmod(0o600)
    apply_patches(path, tiny_patches(tiny))
    return path


@pytest.fixture
def sources(tmp_path):
    with open_sources(Cache(tmp_path / "cache")) as found:
        yield found


def assert_makes(source, whole, tmp_path, size=SIZE):
    """What the source writes to a dirty card is what it needs of the whole image."""
    card = dirty_card(tmp_path / "card", size)
    fd = os.open(card, os.O_RDWR)
    try:
        write_card(fd, size, source.payload, title=source.title, proof=source.proof, delays=())
    finally:
        os.close(fd)
    one, other = card.read_bytes(), whole.read_bytes()
    for start, length in source.payload.needed:
        assert one[start : start + length] == other[start : start + length]


def test_a_variant_and_a_stamp_are_the_node(sources, dist, whole, tmp_path):
    source = sources.of_node(dist, "node3")

    assert (source.title, source.node, source.build) == ("node3 of pico5", "node3", "b1")
    assert source.variant == "v1"
    assert_makes(source, whole, tmp_path)


@pytest.mark.parametrize("fmt", ["img", "img.zst"])
def test_a_node_image_is_taken_when_it_is_newer(sources, dist, whole, tmp_path, fmt):
    import json  # noqa: PLC0415 -- here alone

    artifact.publish(whole, dist, "node3", fmt=fmt)
    manifest = json.loads((dist / "manifest.json").read_bytes())
    manifest["nodes"]["node3"][fmt] = "b2"
    artifact.write_manifest(dist, manifest)

    source = sources.of_node(dist, "node3")

    assert source.build == "b2"
    assert_makes(source, whole, tmp_path)


def test_a_variant_that_changed_since_it_was_built_never_gets_a_partition_table(
    sources, dist, tmp_path
):
    with (dist / "variants" / "worker.img").open("r+b") as file:
        file.seek(ROOT + 5000)
        file.write(b"rot")
    source = sources.of_node(dist, "node3")
    card = dirty_card(tmp_path / "card", SIZE)
    fd = os.open(card, os.O_RDWR)
    try:
        with pytest.raises(VerifyError, match="is not what was built"):
            write_card(fd, SIZE, source.payload, title="x", proof=source.proof)
    finally:
        os.close(fd)
    assert not any(card.read_bytes()[:BLOCK])


def test_what_was_not_built_is_told(sources, dist, tmp_path):
    with pytest.raises(PiimageError, match="has no build of node4") as caught:
        sources.of_node(dist, "node4")
    assert "piimage build --node node4" in caught.value.hint
    with pytest.raises(PiimageError, match="nothing was built in"):
        sources.of_node(tmp_path / "nowhere", "node3")


def pack(image, kind):
    path = image.with_name(f"{image.name}.{kind}")
    data = image.read_bytes()
    if kind == "xz":
        path.write_bytes(lzma.compress(data, preset=0))
    elif kind == "gz":
        path.write_bytes(gzip.compress(data, 1))
    elif kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.write(image, image.name)
    else:
        subprocess.run(["zstd", "-1", "-q", image, "-o", path], check=True)
    return path


@pytest.mark.parametrize(
    ("kind", "mapped"), [("xz", True), ("gz", False), ("zip", False), ("zst", False)]
)
def test_packed_images_with_and_without_a_bmap(sources, whole, tmp_path, kind, mapped):
    path = pack(whole, kind)
    if mapped:
        write_bmap(whole, whole.with_suffix(".bmap"))

    assert_makes(sources.of_file(path), whole, tmp_path)


def test_a_bmap_from_holes_does_not_take_anything_away(sources, whole, tmp_path):
    plain = sources.of_file(whole).payload.needed
    whole.with_suffix(".bmap").write_bytes(bmap(whole, [(0, 0)]))

    assert sources.of_file(whole).payload.needed == plain


def bmap(image, blocks, checksum=None, size=None):
    """A bmap that somebody else made, of these block ranges."""
    data = image.read_bytes()
    lines = []
    for first, last in blocks:
        digest = hashlib.sha256(data[first * BLOCK : (last + 1) * BLOCK]).hexdigest()
        lines.append(f'<Range chksum="{checksum or digest}"> {first}-{last} </Range>')
    text = (
        f'<bmap version="2.0"><ImageSize> {size or len(data)} </ImageSize><BlockSize> 4096 </BlockSize>'
        f"<BmapFileChecksum> {'0' * 64} </BmapFileChecksum><ChecksumType> sha256 </ChecksumType>"
        f"<BlockMap>{''.join(lines)}</BlockMap></bmap>"
    )
    return text.replace("0" * 64, hashlib.sha256(text.encode()).hexdigest(), 1).encode()


def test_an_image_that_its_bmap_does_not_know_is_found(sources, whole):
    whole.with_suffix(".bmap").write_bytes(bmap(whole, [(0, 3)], checksum="1" * 64))

    with pytest.raises(VerifyError, match=r"not the one that `whole\.bmap` was made for"):
        sources.of_file(whole).proof()


def test_the_bmap_of_another_image_is_refused(sources, whole):
    whole.with_suffix(".bmap").write_bytes(bmap(whole, [(0, 3)], size=1 << 30))

    with pytest.raises(ImageError, match="is of an image of 1073741824 bytes"):
        sources.of_file(whole)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no xml",
        b"<!DOCTYPE x><bmap/>",
        b"<bmap/>",
        b"<other><BlockSize>4096</BlockSize><ImageSize>9</ImageSize></other>",
        b"<bmap><BlockSize>0</BlockSize><ImageSize>9</ImageSize></bmap>",
        b"<bmap><BlockSize>4096</BlockSize><ImageSize>9</ImageSize><ChecksumType>x</ChecksumType></bmap>",
        b"<bmap><BlockSize>4096</BlockSize><ImageSize>9000</ImageSize><Range>3</Range></bmap>",
        b"<bmap><BlockSize>4096</BlockSize><ImageSize>9000</ImageSize><Range>-1</Range></bmap>",
        b"<bmap><BlockSize>4096</BlockSize><ImageSize>9000</ImageSize><Range>1-0</Range></bmap>",
    ],
)
def test_what_is_no_bmap_is_refused(tmp_path, data):
    path = tmp_path / "x.bmap"
    path.write_bytes(data)

    with pytest.raises(ImageError, match=r"`x\.bmap` is not a bmap file"):
        read_bmap(path)


def test_a_damaged_bmap_is_refused(tmp_path, whole):
    path = tmp_path / "x.bmap"
    path.write_bytes(bmap(whole, [(0, 3), (7, 9)]).replace(b"7-9", b"7-8"))

    with pytest.raises(ImageError, match="its own checksum is wrong"):
        read_bmap(path)


@pytest.fixture(scope="session")
def larger(tmp_path_factory):
    """An image of some frames, most of them wholly in use."""
    home = tmp_path_factory.mktemp("larger")
    return make_tiny(home / "larger.img", root_size=50 * MIB, data=24 * MIB)


@pytest.fixture
def framed(larger, tmp_path):
    return pack_framed(larger, tmp_path / "larger.img.zst")


def pack_framed(image, target, mapped=None):
    with Quiet().step("packing") as task:
        pack_in_frames(image, target, mapped or mapped_ranges(image), task)
    return target


def spoil(path, *frames):
    """One wrong bit in each of these frames."""
    places = read_layout(path).frames
    with path.open("r+b") as file:
        for number in frames:
            start, length = places[number]
            file.seek(start + length // 2)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))


def test_an_image_in_frames_is_not_unpacked_first(sources, framed, larger, tmp_path):
    source = sources.of_file(framed)

    assert source.payload.needed == open_payload(larger).needed
    assert source.payload.place(ROOT) == "partition 2, ext4 rootfs"
    assert_makes(source, larger, tmp_path, larger.stat().st_size)
    assert not [path for path in (tmp_path / "cache" / "scratch").rglob("*") if path.is_file()]


def test_frames_that_tell_what_is_in_use_are_unpacked_once(sources, framed, monkeypatch):
    unpacked = []
    inner = FramedContent._unpack

    def unpack(content, number, view):
        unpacked.append(number)
        return inner(content, number, view)

    monkeypatch.setattr(FramedContent, "_unpack", unpack)
    sources.of_file(framed)

    assert len(unpacked) == len(set(unpacked)) > 0


def test_what_is_read_of_a_variant_has_the_stamp_in_it(tiny, tmp_path):
    """Also where what was unpacked is written from where it lies: that stays as it is, for the next node."""
    packed = open_framed(pack_framed(tiny, tmp_path / "worker.img.zst"))
    first, *_ = patches = tiny_patches(tiny)
    start = first.offset // BLOCK * BLOCK
    view = memoryview(bytearray(BLOCK))
    seen = []
    for payload in (open_payload(packed, patches), open_payload(packed)):
        with payload.reading() as reader, reader.held(start, view) as content:
            seen.append((bytes(content), content.obj is view.obj))
    stamped, plain = bytearray(seen[1][0]), seen[1][0]
    place = first.offset - start
    inside = first.data[: BLOCK - place]
    stamped[place : place + len(inside)] = inside

    assert seen[0][0][: place + len(inside)] == stamped[: place + len(inside)] != plain
    assert [own for _, own in seen] == [True, False]


def test_a_stamp_goes_over_a_variant_in_frames(sources, dist, whole, tmp_path):
    import json  # noqa: PLC0415 -- here and below alone

    manifest = json.loads((dist / "manifest.json").read_bytes())
    image = dist / "variants" / "worker.img"
    packed = pack_framed(image, image.with_suffix(".img.zst"))
    image.unlink()
    known = manifest["variants"]["worker"]
    known |= {"image": f"variants/{packed.name}", "sha256": hash_file(packed)}
    artifact.write_manifest(dist, manifest)

    assert_makes(sources.of_node(dist, "node3"), whole, tmp_path)


def test_frames_that_hold_nothing_in_use_are_not_unpacked(sources, framed, larger, tmp_path):
    """The last ones: they are damaged here, so that unpacking them would be noticed."""
    used = {start // CHUNK for start, length in pieces(mapped_ranges(larger), CHUNK)}
    unused = set(range(-(-larger.stat().st_size // CHUNK))) - used
    spoil(framed, *unused)

    assert unused
    assert_makes(sources.of_file(framed), larger, tmp_path, larger.stat().st_size)


def test_a_frame_that_is_damaged_never_gets_a_partition_table(sources, framed, tmp_path):
    spoil(framed, 4)
    source = sources.of_file(framed)
    card = dirty_card(tmp_path / "card", source.payload.size)

    with pytest.raises(VerifyError, match=r"byte 16777216 to 20971520 of the image in it"):
        written(card, source)

    content = card.read_bytes()
    assert not any(content[:BLOCK])
    assert content[16 * MIB : 16 * MIB + BLOCK] == b"old!" * (BLOCK // 4)


def written(card, source, **options):
    fd = os.open(card, os.O_RDWR)
    try:
        return write_card(
            fd, card.stat().st_size, source.payload, title="x", proof=source.proof, **options
        )
    finally:
        os.close(fd)


def test_a_resumed_write_unpacks_nothing_before_its_place(
    sources, framed, larger, tmp_path, monkeypatch
):
    """Frames before it are damaged here; what is on the card of them is proven by their digests."""
    monkeypatch.setattr("piimage.flash.writer._STRETCH", 4 * MIB)
    source, stop = sources.of_file(framed), Event()
    card = dirty_card(tmp_path / "card", source.payload.size)

    def notify(event):
        if event.kind == "progress" and event.data["done"] > 18 * MIB:
            stop.set()

    with pytest.raises(KeyboardInterrupt):
        written(card, source, stop=stop, notify=notify)
    with card.open("rb") as file:
        assert read_journal(file.fileno()).done >= 16 * MIB
    spoil(framed, 1, 2)

    outcome = written(card, source, mode="resume")

    assert outcome.written < amount(source.payload.needed) - 10 * MIB
    content, wanted = card.read_bytes(), larger.read_bytes()
    for start, length in source.payload.needed:
        assert content[start : start + length] == wanted[start : start + length]


def test_a_bit_of_the_card_that_is_wrong_is_found_by_the_frames_digest(
    sources, framed, larger, tmp_path
):
    source = sources.of_file(framed)
    card = dirty_card(tmp_path / "card", source.payload.size)
    written(card, source)
    with card.open("r+b") as file:
        file.seek(9 * MIB)
        file.write(b"rot")

    outcome = written(card, source, mode="update")

    assert not outcome.unchanged
    assert card.read_bytes()[9 * MIB : 9 * MIB + 3] == larger.read_bytes()[9 * MIB : 9 * MIB + 3]


def test_an_index_of_another_image_is_refused(sources, framed, larger, tmp_path):
    less = pack_framed(larger, tmp_path / "less.img.zst", mapped_ranges(larger)[:-1])

    with pytest.raises(ImageError, match="leaves out what its file systems have in use") as caught:
        sources.of_file(less)
    assert "zstd -d" in caught.value.hint


def test_two_cards_share_what_is_unpacked(sources, framed):
    one, other = sources.of_file(framed), sources.of_file(framed)

    with one.payload.image.opened() as content, other.payload.image.opened() as also:
        assert content is also
    with one.payload.image.opened() as later:
        assert later is not content


def test_frames_cut_short_get_no_partition_table(sources, framed, tmp_path):
    """Without their end they are ordinary zstd data, which is seen to be cut short while it is written."""
    with framed.open("r+b") as file:
        file.truncate(framed.stat().st_size // 2)
    source = sources.of_file(framed)
    card = dirty_card(tmp_path / "card", source.payload.size)

    with pytest.raises(ImageError, match="truncated or damaged"):
        written(card, source)
    assert not any(card.read_bytes()[:BLOCK])


@pytest.fixture(scope="session")
def grouped(tmp_path_factory):
    """An image whose file system has the bitmap of each group in that group: it is known when it comes."""
    home = tmp_path_factory.mktemp("grouped")
    path = make_tiny(
        home / "grouped.img", root_size=50 * MIB, data=24 * MIB, features="^has_journal,^flex_bg"
    )
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("kind", ["xz", "gz", "zip", "zst"])
def test_what_is_needed_of_an_image_that_arrives_is_what_the_whole_one_needs(
    sources, grouped, tmp_path, kind
):
    image = tmp_path / grouped.name
    copy_sparse(grouped, image)
    payload = sources.of_file(pack(image, kind)).payload

    assert payload.needed == open_payload(grouped).needed
    assert payload.size == SIZE - 3 * MIB + 50 * MIB
    found = payload.map.expected() / amount(payload.needed)
    assert 0.9 < found < 1.1


STALLING = """\
#!/bin/sh
head -c {first} {raw}
for n in $(seq 200); do
    [ -e {go} ] && exec tail -c +{next} {raw}
    sleep 0.05
done
echo "zstd: nobody said go" >&2
exit 1
"""


@pytest.fixture
def stalling(grouped, tmp_path, monkeypatch):
    """A packed image of which the second half comes once `go` is there, and `go`."""
    go, first = tmp_path / "go", 20 * MIB
    fake = tmp_path / "bin" / "zstd"
    fake.parent.mkdir()
    fake.write_text(STALLING.format(first=first, next=first + 1, raw=grouped, go=go))
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    packed = tmp_path / "grouped.img.zst"
    packed.write_bytes(b"\x28\xb5\x2f\xfd and nothing that zstd would know")
    return packed, go


def test_a_packed_image_is_written_while_it_is_unpacked(sources, stalling, grouped, tmp_path):
    packed, go = stalling
    source = sources.of_file(packed)
    card = dirty_card(tmp_path / "card", source.payload.size)
    seen = []

    def notify(event):
        if event.kind == "progress":  # something is on the card
            seen.append(go.exists())
            go.touch()

    outcome = written(card, source, notify=notify)

    assert not seen[0]
    content, wanted = card.read_bytes(), grouped.read_bytes()
    needed = open_payload(grouped).needed
    for start, length in needed:
        assert content[start : start + length] == wanted[start : start + length]
    assert outcome.written == outcome.checked == amount(needed)


@pytest.mark.parametrize("mode", ["fresh", "update"])
def test_who_waits_for_an_image_to_arrive_can_be_stopped(sources, stalling, tmp_path, mode):
    packed, go = stalling
    source, stop = sources.of_file(packed), Event()
    card = dirty_card(tmp_path / "card", source.payload.size)
    Timer(1.0, stop.set).start()

    with pytest.raises(KeyboardInterrupt):
        written(card, source, stop=stop, mode=mode)
    go.touch()


def test_a_broken_write_of_an_image_that_arrives_goes_on(sources, grouped, tmp_path, monkeypatch):
    monkeypatch.setattr("piimage.flash.writer._STRETCH", 4 * MIB)
    image = tmp_path / grouped.name
    copy_sparse(grouped, image)
    packed, stop = pack(image, "zst"), Event()
    source = sources.of_file(packed)
    card = dirty_card(tmp_path / "card", source.payload.size)

    def notify(event):
        if event.kind == "progress" and event.data["done"] > 18 * MIB:
            stop.set()

    with pytest.raises(KeyboardInterrupt):
        written(card, source, stop=stop, notify=notify)
    with open_sources(Cache(tmp_path / "other")) as again:
        source = again.of_file(packed)
        outcome = written(card, source, mode="resume")
        assert outcome.written < amount(source.payload.needed) - 10 * MIB
        content, wanted = card.read_bytes(), grouped.read_bytes()
        for start, length in source.payload.needed:
            assert content[start : start + length] == wanted[start : start + length]


@pytest.mark.parametrize(
    ("cut", "words"), [(1, "partitions have"), (30 * MIB, "partitions have"), (SIZE, "partitions")]
)
def test_an_image_cut_short_before_it_was_packed(sources, grouped, tmp_path, cut, words):
    image = tmp_path / "short.img"
    copy_sparse(grouped, image)
    os.truncate(image, grouped.stat().st_size - cut)
    source = sources.of_file(pack(image, "gz"))
    card = dirty_card(tmp_path / "card", source.payload.size)

    with pytest.raises(ImageError, match=f"is truncated: the image in it has .*{words}"):
        written(card, source)
    assert not any(card.read_bytes()[:BLOCK])


def test_packed_data_that_is_damaged_near_its_end_gets_no_partition_table(sources, whole, tmp_path):
    path = pack(whole, "xz")
    content = bytearray(path.read_bytes())
    content[-200] ^= 1
    path.write_bytes(content)
    source = sources.of_file(path)
    card = dirty_card(tmp_path / "card", SIZE)

    with pytest.raises(ImageError, match=r"is damaged|truncated"):
        written(card, source)
    assert not any(card.read_bytes()[:BLOCK])


def test_what_is_packed_is_no_image(sources, tmp_path):
    for content in (b"", b"x" * MIB):
        path = tmp_path / "none.img.gz"
        path.write_bytes(gzip.compress(content))

        with pytest.raises(ImageError, match="no partition table"):
            sources.of_file(path)


@pytest.mark.parametrize("size", [SIZE - MIB, SIZE + MIB])
def test_the_bmap_of_another_image_beside_a_packed_one(sources, whole, tmp_path, size):
    whole.with_suffix(".bmap").write_bytes(bmap(whole, [(0, 3)], size=size))
    path = pack(whole, "gz")

    with pytest.raises(ImageError, match=r"is of an image of|is truncated"):
        sources.of_file(path).proof()


def test_a_packed_image_that_its_bmap_does_not_know_gets_no_partition_table(
    sources, whole, tmp_path
):
    whole.with_suffix(".bmap").write_bytes(bmap(whole, [(0, 3)], checksum="1" * 64))
    source = sources.of_file(pack(whole, "gz"))
    card = dirty_card(tmp_path / "card", SIZE)

    with pytest.raises(VerifyError, match="was made for"):
        written(card, source)
    assert not any(card.read_bytes()[:BLOCK])
