"""Pulls from a server of the test's own, signed with keys of the test's own: whole, or refused and nothing left."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import lzma
import os
import random
import resource
import subprocess
import zipfile
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import phony
import pytest
from phony_keys import signers
from phony_mirror import mirror

from piimage.bases import download, trust
from piimage.bases.places import place
from piimage.bases.publishers import Publisher, published
from piimage.bases.pull import pull, pull_address
from piimage.bases.store import Store
from piimage.disk.sparse import hash_file
from piimage.errors import (
    ConfigError,
    FetchError,
    ImageError,
    PiimageError,
    VerifyError,
    WriteFailedError,
)
from piimage.progress import Quiet

pytestmark = pytest.mark.processes
NAME = "company-1"
FILE = "x+1.img.xz"


#: Where the root file system begins.
ROOT = phony.SMALL_ROOT_START


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A phony image that is small, since most of these tests unpack it; part of it does not compress."""
    payload = phony.Node(random.Random(3).randbytes(600_000))
    path = tmp_path_factory.mktemp("pull") / "x.img"
    root = {"/payload": payload}
    return phony.make_phony(path, boot_size=phony.SMALL_BOOT_SIZE, root_size=4 << 20, root=root)


@pytest.fixture(scope="module")
def packed(raw):
    return lzma.compress(raw.read_bytes(), preset=0)


@pytest.fixture(scope="module")
def people():
    with signers("alice", "bob") as found:
        yield found


@pytest.fixture
def site():
    with mirror() as server:
        yield server


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "WAITS", (0.0, 0.0))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("PIIMAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return Store()


def sha(data):
    return hashlib.sha256(data).hexdigest()


class Said(Quiet):
    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)

    warn = say


class Company:
    """A publisher with its server, in the way of Ubuntu (`sums`), Fedora (`inline`) or Raspberry Pi (`detached`)."""

    def __init__(self, site, signer, store, data, *, way="sums", file=FILE, known=True, **values):
        self.site, self.signer, self.store, self.file = site, signer, store, file
        self.said = Said()
        sums = "" if way == "detached" else "SHA256SUMS"
        signature = {"sums": "SHA256SUMS.gpg", "inline": "inline", "detached": "{file}.sig"}[way]
        publisher = Publisher(
            name="company",
            title="Company",
            keys=(signer.fingerprint,),
            sums=sums,
            signature=signature,
        )
        self.image = published(publisher, f"{site.url}/os/{file}", values, pinned=True)
        self.served = site.put(f"/os/{file}", data)
        self.sign(data, way)
        if known:
            trust.trust(signer.public(), {"company": publisher})

    def sign(self, data, way="sums", digest=None):
        digest = digest or sha(data)
        if way == "detached":
            self.site.put(f"/os/{self.file}.sig", self.signer.detached(data))
        elif way == "sums":
            text = f"{'0' * 64} *other.img.xz\n{digest} *{self.file}\n".encode()
            self.site.put("/os/SHA256SUMS", text)
            self.site.put("/os/SHA256SUMS.gpg", self.signer.detached(text, "--armor"))
        else:
            text = f"# {self.file}: 7 bytes\nSHA256 ({self.file}) = {digest}\n".encode()
            self.site.put("/os/SHA256SUMS", self.signer.clear(text))

    def pull(self, **options):
        where = place(options.pop("mirror", None), options.pop("file", None))
        return pull(NAME, self.image, store=self.store, progress=self.said, place=where, **options)

    def asked(self):
        return self.site.ranges(f"/os/{self.file}")

    def left(self):
        """What lies under a good name, and under scratch names."""
        home = self.store.root / "downloads" / NAME
        names = sorted(path.name for path in home.iterdir()) if home.exists() else []
        scratch = self.store.root / "scratch"
        assert not scratch.exists() or not list(scratch.iterdir())
        return names


@pytest.fixture
def make(site, people, store):
    """A company whose images alice signs."""
    return partial(Company, site, people[0], store)


@pytest.fixture
def company(make, packed):
    return make(packed)


@pytest.mark.parametrize("way", ["sums", "inline", "detached"])
def test_a_signed_image_becomes_a_base(make, raw, packed, way):
    company = make(packed, way=way)

    base = company.pull()

    assert base.name == NAME
    assert base.id == hash_file(raw) == hash_file(base.path)
    assert (base.origin.kind, base.origin.source) == ("imported", FILE)
    assert base.origin.sha256 == sha(packed)
    assert base.facts.os.id == "debian"
    assert company.left() == []
    assert any("was signed by Company on" in line for line in company.said.lines)


def test_a_base_that_is_here_is_not_asked_for(company):
    first = company.pull()
    before = len(company.site.seen)

    assert company.pull() == first
    assert len(company.site.seen) == before


@pytest.mark.parametrize("kind", ["gz", "zst", "zip", "zip-late", "raw", "qcow2"])
def test_every_container(make, raw, tmp_path, kind):
    path = tmp_path / f"x.img.{kind}"
    if kind == "gz":
        path.write_bytes(gzip.compress(raw.read_bytes(), 1))
    elif kind == "zst":
        with path.open("wb") as sink:
            subprocess.run(["zstd", "-q", "-1", "-c", str(raw)], stdout=sink, check=True)
    elif kind.startswith("zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            if kind == "zip-late":
                archive.writestr("README.txt", "hello")
            archive.write(raw, "x.img")
    elif kind == "qcow2":
        subprocess.run(["qemu-img", "convert", "-O", "qcow2", str(raw), str(path)], check=True)
    else:
        path = raw
    company = make(path.read_bytes(), file=path.name)

    assert company.pull().id == hash_file(raw)
    assert company.left() == []


def test_a_connection_that_breaks(company, packed):
    company.served.cuts += [len(packed) // 3, 0, len(packed) // 3]

    assert company.pull().origin.sha256 == sha(packed)
    assert company.asked()[1] == f"bytes={len(packed) // 3}-"


def test_a_run_that_was_given_up_is_gone_on_with(company, packed):
    company.served.cuts += [len(packed) // 2, 0, 0, 0]

    with pytest.raises(FetchError) as caught:
        company.pull()
    left = company.left()
    company.served.cuts.clear()
    base = company.pull()

    assert "goes on from there" in caught.value.hint
    assert {".part", ".part.json"} <= set(left)
    assert not [name for name in left if not name.startswith(".")]
    assert company.asked()[-1] == f"bytes={len(packed) // 2}-"
    assert base.origin.sha256 == sha(packed)


@pytest.mark.parametrize("lie", ["ignore-range", "wrong-start", "no-content-range", "no-etag"])
def test_a_server_that_lies_about_ranges(company, packed, lie):
    company.served.cuts.append(len(packed) // 2)
    company.served.lies.add(lie)

    assert company.pull().origin.sha256 == sha(packed)


def test_a_server_that_sends_other_bytes_for_a_range_is_asked_for_all(company, packed):
    """Its headers are right, so only digest or decompression can tell; then once more from the start."""
    company.served.cuts.append(len(packed) // 2)
    company.served.lies.add("other-bytes")

    assert company.pull().origin.sha256 == sha(packed)
    assert company.asked() == [None, f"bytes={len(packed) // 2}-", None]
    assert any("fetched again, whole" in line for line in company.said.lines)


def test_a_file_that_changes_on_the_server_is_unpacked_anew(company, packed, raw):
    company.served.cuts += [len(packed) // 2, 0, 0, 0]
    company.sign(packed, digest="1" * 64)
    with pytest.raises(FetchError):
        company.pull()
    newer = lzma.compress(raw.read_bytes(), preset=1)
    company.site.put(f"/os/{FILE}", newer, etag='"two"')
    company.sign(newer)

    assert company.pull().origin.sha256 == sha(newer)


def test_a_wrong_digest(company, packed):
    company.sign(packed, digest="1" * 64)

    with pytest.raises(
        VerifyError, match=f"has sha256 {sha(packed)}, expected {'1' * 64}"
    ) as caught:
        company.pull()

    assert caught.value.exit_code == 4
    assert company.left() == [".SHA256SUMS", ".SHA256SUMS.gpg"]
    assert company.store.records() == []


def test_a_wrong_digest_of_the_raw_image(make, store, raw, packed):
    company = make(packed, image_sha256="1" * 64)

    with pytest.raises(
        VerifyError, match=f"the image in `x\\+1.img.xz` has sha256 {hash_file(raw)}"
    ):
        company.pull()

    assert not [name for name in company.left() if "part" in name or not name.startswith(".")]
    assert store.records() == []


def test_the_right_digest_of_the_raw_image(make, raw, packed):
    company = make(packed, image_sha256=hash_file(raw), size=len(packed))

    assert company.pull().id == hash_file(raw)


@pytest.mark.parametrize("way", ["sums", "inline", "detached"])
def test_a_wrong_signature(make, site, packed, way):
    company = make(packed, way=way)
    if way == "inline":
        sums = site.files["/os/SHA256SUMS"]
        sums.data = sums.data.replace(sha(packed).encode(), b"1" * 64)
    else:
        place = f"/os/{FILE}.sig" if way == "detached" else "/os/SHA256SUMS.gpg"
        site.put(place, company.signer.detached(b"something else"))

    with pytest.raises(VerifyError, match="is wrong: it was changed"):
        company.pull()

    assert not [name for name in company.left() if not name.startswith(".") or "part" in name]
    # A list is judged before the image is asked for.
    assert bool(company.asked()) == (way == "detached")
    assert company.store.records() == []


@pytest.mark.parametrize("way", ["sums", "inline", "detached"])
def test_without_the_key_nothing_is_downloaded(make, people, packed, way):
    company = make(packed, way=way, known=False)

    with pytest.raises(VerifyError, match="with a key that is not here") as caught:
        company.pull()

    assert caught.value.exit_code == 4
    assert people[0].fingerprint in caught.value.hint
    assert company.asked() == []


def test_a_signature_by_somebody_else(make, site, people, packed):
    company = make(packed, way="detached")
    site.put(f"/os/{FILE}.sig", people[1].detached(packed))

    with pytest.raises(VerifyError, match="neither here nor one of the keys of Company"):
        company.pull()


def test_a_signed_list_without_the_image(company):
    text = f"{'0' * 64} *other.img.xz\n".encode()
    company.site.put("/os/SHA256SUMS", text)
    company.site.put("/os/SHA256SUMS.gpg", company.signer.detached(text))

    with pytest.raises(VerifyError, match=r"says nothing of `x\+1\.img\.xz`"):
        company.pull()


def test_a_list_that_disagrees_with_the_catalog(make, packed):
    company = make(packed, sha256="2" * 64)

    with pytest.raises(VerifyError, match="no agreement on the sha256") as caught:
        company.pull()

    assert "the catalog: 2222" in caught.value.message
    assert company.asked() == []


@pytest.mark.parametrize("way", ["sums", "detached"])
def test_a_truncated_xz_that_is_signed(make, packed, way):
    company = make(packed[: len(packed) // 2], way=way)

    with pytest.raises(ImageError, match=r"`x\+1\.img\.xz` is truncated") as caught:
        company.pull()

    assert caught.value.exit_code == 1
    assert not [name for name in company.left() if not name.startswith(".") or "part" in name]


def test_a_truncated_xz_that_is_not_what_was_signed(company, packed):
    """The digest is the better reason of the two."""
    company.served.data = packed[: len(packed) // 2]

    with pytest.raises(VerifyError, match="has sha256"):
        company.pull()


def test_damage_in_the_middle_ends_the_download(company, packed):
    company.served.data = packed[:5000] + bytes(5000) + packed[10_000:]

    with pytest.raises(PiimageError, match=r"is damaged|has sha256"):
        company.pull()

    assert not [name for name in company.left() if not name.startswith(".") or "part" in name]


def test_what_is_no_image_is_kept_where_it_is_signed(make, store):
    """As other bases that cannot be used yet: proved, told where it lies, and not fetched twice."""
    data = lzma.compress(b"\0" * 510 + b"\x55\xaa" + b"x" * 4096)
    company = make(data)

    with pytest.raises(ImageError):
        company.pull()
    assert store.records() == []


def test_a_base_that_is_not_supported_is_kept(make, site, store, raw, tmp_path):
    damaged = tmp_path / "odd.img"
    damaged.write_bytes(raw.read_bytes())
    with damaged.open("r+b") as file:
        file.seek(ROOT + 1080)
        file.write(b"\0\0")
    company = make(lzma.compress(damaged.read_bytes(), preset=0))

    with pytest.raises(PiimageError, match="no partition holds /etc/os-release"):
        company.pull()
    (kept,) = [name for name in company.left() if not name.startswith(".")]
    assert kept == FILE
    assert company.said.lines[-1].endswith(f"is kept: `{store.root}/downloads/{NAME}/{FILE}`")
    company.site.files.clear()  # and now without the network
    with pytest.raises(PiimageError, match="no partition holds /etc/os-release"):
        company.pull()

    assert company.asked() == [None]


def test_no_network(company):
    company.image = replace(company.image, sums="http://127.0.0.1:9/SHA256SUMS")

    with pytest.raises(FetchError, match="connection refused") as caught:
        company.pull()

    assert caught.value.exit_code == 1
    assert "--mirror DIR" in caught.value.hint


def test_an_image_that_is_gone(company):
    del company.site.files[f"/os/{FILE}"]

    with pytest.raises(FetchError, match="404"):
        company.pull()


@contextmanager
def room(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [200_000, 2 << 20])
def test_a_full_disk(company, packed, size):
    """For the download itself, and for the image in it."""
    assert 200_000 < len(packed) < 2 << 20

    with room(size), pytest.raises(WriteFailedError) as caught:
        company.pull()
    assert caught.value.exit_code == 7
    assert ".part" in company.left()
    assert company.pull().origin.sha256 == sha(packed)


def test_no_room_is_known_before(make, packed):
    company = make(packed, image_size=1 << 60)

    with pytest.raises(WriteFailedError, match="are needed"):
        company.pull()
    assert company.asked() == []


def unsigned(company, **values):
    publisher = Publisher(name="company", title="Company")
    company.image = published(publisher, company.image.url, values, pinned=True)


def test_nothing_proves_the_image(company, packed):
    unsigned(company)

    with pytest.raises(ConfigError, match="does not sign") as caught:
        company.pull()
    assert caught.value.exit_code == 2
    assert company.pull(sha256=sha(packed).upper()).origin.sha256 == sha(packed)


def test_a_digest_in_the_catalog_proves_it(company, packed):
    unsigned(company, sha256=sha(packed))

    assert company.pull().origin.sha256 == sha(packed)


def test_without_signature_wants_a_digest_in_the_catalog(company):
    with pytest.raises(ConfigError, match="without its signature nothing would prove it"):
        company.pull(without_signature=True)


def test_without_signature_for_one_with_a_digest_in_the_catalog(make, packed):
    company = make(packed, known=False, sha256=sha(packed))

    assert company.pull(without_signature=True).origin.sha256 == sha(packed)


def test_a_digest_that_a_list_of_images_gives_does_not_stand_for_a_signature(company, packed):
    company.image = replace(company.image, sha256=sha(packed), pinned=False)

    with pytest.raises(ConfigError):
        company.pull(without_signature=True)


@pytest.mark.parametrize("digest", ["", "12", "g" * 64])
def test_what_is_no_digest(company, digest):
    with pytest.raises(ConfigError, match="is not a sha256"):
        company.pull(sha256=digest)


@pytest.mark.parametrize("way", ["sums", "inline", "detached"])
@pytest.mark.parametrize("layout", ["flat", "tree"])
def test_a_mirror_directory_needs_no_network(make, packed, tmp_path, way, layout):
    company = make(packed, way=way)
    site = company.site
    for path, file in site.files.items():
        host = Path(f"127.0.0.1:{site.server_port}")
        where = tmp_path / "mirror" / (host / path[1:] if layout == "tree" else Path(path).name)
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_bytes(file.data)

    assert company.pull(mirror=str(tmp_path / "mirror")).origin.sha256 == sha(packed)
    assert site.seen == []
    assert company.left() == []


def test_a_mirror_directory_with_another_file(company, tmp_path):
    for path, file in company.site.files.items():
        (tmp_path / Path(path).name).write_bytes(file.data)
    (tmp_path / FILE).write_bytes(lzma.compress(b"evil"))

    with pytest.raises(VerifyError, match="has sha256"):
        company.pull(mirror=str(tmp_path))
    assert (tmp_path / FILE).exists()
    (tmp_path / FILE).unlink()
    with pytest.raises(FetchError, match="has neither"):
        company.pull(mirror=str(tmp_path))


def test_a_mirror_by_its_address(company, packed):
    prefix = f"/m/127.0.0.1:{company.site.server_port}"
    for path in [*company.site.files]:
        company.site.files[f"{prefix}{path}"] = company.site.files.pop(path)

    assert company.pull(mirror=f"{company.site.url}/m/").origin.sha256 == sha(packed)


def test_a_mirror_that_is_nothing(company):
    with pytest.raises(FetchError, match="neither a directory nor an address"):
        company.pull(mirror="/nowhere/at/all")


def test_a_file_with_its_signature_beside_it(make, site, people, packed, tmp_path):
    company = make(packed, way="detached")
    (tmp_path / "mine.img.xz").write_bytes(packed)
    (tmp_path / f"{FILE}.sig").write_bytes(people[0].detached(packed))

    assert company.pull(file=tmp_path / "mine.img.xz").origin.sha256 == sha(packed)
    assert site.seen == []
    assert (tmp_path / "mine.img.xz").read_bytes() == packed


def test_a_file_whose_signature_is_asked_for(company, packed, tmp_path):
    (tmp_path / "mine.img.xz").write_bytes(packed)

    assert company.pull(file=tmp_path / "mine.img.xz").origin.sha256 == sha(packed)
    assert company.asked() == []


def test_a_wrong_file(company, tmp_path):
    (tmp_path / "mine.img.xz").write_bytes(lzma.compress(b"evil"))

    with pytest.raises(VerifyError):
        company.pull(file=tmp_path / "mine.img.xz")
    with pytest.raises(FetchError, match="there is no file"):
        company.pull(file=tmp_path / "absent")


def test_an_address_in_a_cluster_is_downloaded_once(site, store, packed):
    site.put("/os/x+1.img.xz", packed)
    url = f"{site.url}/os/x%2B1.img.xz"

    first = store.base(url, sha256=sha(packed))
    asked = len(site.seen)
    again = store.base(f"{site.url}/elsewhere.img.xz", sha256=sha(packed))

    assert first.name == f"x+1-{sha(packed)[:12]}"
    assert (again.id, again.name, len(site.seen)) == (first.id, first.name, asked)


def test_another_file_at_the_address_is_refused_and_not_kept(site, store, packed):
    site.put("/os/x.img.xz", packed)

    with pytest.raises(
        VerifyError, match=f"`x.img.xz` has sha256 {sha(packed)}, expected {'0' * 64}"
    ):
        pull_address(f"{site.url}/os/x.img.xz", sha256="0" * 64, store=store, progress=Quiet())

    assert store.records() == []
    assert not list(store.root.glob("downloads/*/x.img.xz"))


def test_a_mirrors_directory_stands_for_the_address(store, packed, tmp_path, monkeypatch):
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "y.img.xz").write_bytes(packed)
    monkeypatch.setenv("PIIMAGE_MIRROR", str(tmp_path / "mirror"))

    base = store.base("https://images.example.org/y.img.xz", sha256=sha(packed))

    assert base.origin.sha256 == sha(packed)


def test_pruning_waits_for_a_download(site, store, packed, monkeypatch):
    seen = []
    real = Store.lock

    def lock(self, name):
        if name.startswith("pull-"):  # held from here to the end
            use = os.open(store.root / "locks/use.lock", os.O_RDWR)
            with pytest.raises(BlockingIOError):
                fcntl.flock(use, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(use)
            seen.append(name)
        return real(self, name)

    monkeypatch.setattr(Store, "lock", lock)
    site.put("/os/x.img.xz", packed)

    store.base(f"{site.url}/os/x.img.xz", sha256=sha(packed))

    assert len(seen) == 1
