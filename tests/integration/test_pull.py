"""Images laid out like the vendors', pulled in the vendors' ways, are the bases that their adapters know."""

from __future__ import annotations

import subprocess

import pytest
from fixtures import raspios, ubuntu
from phony_keys import signers
from phony_mirror import mirror

from piimage.bases import trust
from piimage.bases.places import place
from piimage.bases.publishers import Publisher, published
from piimage.bases.pull import pull
from piimage.bases.store import Store
from piimage.disk.sparse import hash_file
from piimage.progress import Quiet


@pytest.mark.parametrize(
    ("card", "sums", "signature"),
    [
        (raspios.trixie(), "", "{file}.sig"),
        (ubuntu.noble(), "SHA256SUMS", "SHA256SUMS.gpg"),
    ],
    ids=["raspios", "ubuntu"],
)
def test_a_vendors_image_becomes_a_base(tmp_path, monkeypatch, card, sums, signature):
    monkeypatch.setenv("PIIMAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("no_proxy", "*")
    raw = card.write(tmp_path / "raw.img")
    file = f"{card.name}.img.zst"
    subprocess.run(["zstd", "-q1", str(raw), "-o", str(tmp_path / file)], check=True)
    with mirror() as site, signers("vendor") as (vendor,):
        site.put(f"/os/{file}", (tmp_path / file).read_bytes(), cuts=[10_000])
        if sums:
            text = subprocess.run(
                ["sha256sum", "-b", file], cwd=tmp_path, stdout=subprocess.PIPE, check=True
            ).stdout
            site.put("/os/SHA256SUMS", text)
            site.put("/os/SHA256SUMS.gpg", vendor.detached(text, "--armor"))
        else:
            site.put(f"/os/{file}.sig", vendor.detached((tmp_path / file).read_bytes()))
        publisher = Publisher(
            name="vendor", title="V", keys=(vendor.fingerprint,), sums=sums, signature=signature
        )
        trust.trust(vendor.public(), {"vendor": publisher})
        image = published(
            publisher, f"{site.url}/os/{file}", {"image_sha256": hash_file(raw)}, pinned=True
        )

        base = pull("one", image, store=Store(), progress=Quiet(), place=place(None, None))

    assert base.id == hash_file(raw)
    assert base.facts.cloud_init
    assert site.ranges(f"/os/{file}") == [None, "bytes=10000-"]
