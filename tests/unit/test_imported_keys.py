"""`gh:` and `lp:` names: asked for once, pinned, and only what is a key of a stranger's text is taken."""

from __future__ import annotations

import http.server
import json
import re
import subprocess
import threading
from dataclasses import replace

import phony_facts
import pytest
from hypothesis import given
from hypothesis import strategies as st

from piimage.cluster import KeyRef
from piimage.errors import ConfigError, FetchError, StateError
from piimage.progress import Quiet
from piimage.state import imported_keys, keys, state

ED = " ".join(keys.generate("x")[1].split()[:2])
OTHER = " ".join(keys.generate("y")[1].split()[:2])


class Handler(http.server.BaseHTTPRequestHandler):
    server: Site

    def do_GET(self):
        self.server.asked.append(self.path)
        text = self.server.texts.get(self.path)
        self.send_response(200 if text is not None else 404)
        self.end_headers()
        self.wfile.write((text or "").encode())

    def log_message(self, *_):
        pass


class Site(http.server.ThreadingHTTPServer):
    """In the place of GitHub and Launchpad, for those who have `env`: `texts` by path, and `asked` in order."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.texts, self.asked = {}, []
        url = f"http://127.0.0.1:{self.server_port}"
        self.env = {
            "PIIMAGE_GITHUB_URL": url,
            "PIIMAGE_LAUNCHPAD_URL": f"{url}/",
            "PI_WIFI_PSK": "correct horse battery",
        }


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    server = Site()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def cluster(tmp_path):
    made = phony_facts.cluster()
    refs = (KeyRef("key", f"{ED} mine"), KeyRef("gh", "ada"), KeyRef("lp", "ada"))
    users = (replace(made.users[0], ssh_keys=refs), replace(made.users[1], ssh_keys=refs[1:2]))
    return replace(made, users=users, directory=tmp_path, source=tmp_path / "lab.yaml")


def taken(text, site):
    site.texts["/ada.keys"] = text
    return imported_keys.fetch(["gh:ada"], site.env, Quiet())["gh:ada"].keys


def test_names_of_a_cluster(cluster):
    assert imported_keys.names(cluster) == ("gh:ada", "lp:ada")


def test_a_build_asks_once_and_then_never_again(cluster, site):
    site.texts = {"/ada.keys": f"{ED}\n", "/~ada/+sshkeys": f"{OTHER} ada@home\n"}

    first = state.open_state(cluster).secrets(cluster, site.env)
    site.texts.clear()
    second = state.open_state(cluster).secrets(cluster, site.env)

    assert site.asked == ["/ada.keys", "/~ada/+sshkeys"]
    assert first.authorized_keys == {
        "federico": (f"{ED} mine", f"{ED} gh:ada", f"{OTHER} lp:ada"),
        "ops": (f"{ED} gh:ada",),
    }
    assert second == first


def test_the_pin(cluster, site):
    site.texts = {"/ada.keys": ED, "/~ada/+sshkeys": OTHER}
    opened = state.open_state(cluster)
    opened.secrets(cluster, site.env)

    path = opened.path / "imported_keys.json"
    pin = json.loads(path.read_bytes())["gh:ada"]

    assert path.stat().st_mode & 0o777 == 0o600
    assert pin["keys"] == [f"{ED} gh:ada"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", pin["fetched"])


def test_an_export_carries_the_pins(cluster, site, tmp_path):
    site.texts = {"/ada.keys": ED, "/~ada/+sshkeys": OTHER}
    secrets = state.open_state(cluster).secrets(cluster, site.env)
    state.export(cluster, tmp_path / "copy.tar")
    moved = replace(cluster, source=tmp_path / "other.yaml")
    state.import_(moved, tmp_path / "copy.tar")
    site.texts.clear()

    assert state.open_state(moved).secrets(moved, site.env).authorized_keys == (
        secrets.authorized_keys
    )


def test_only_lines_that_are_keys_are_taken(site):
    text = f"""\
# a comment
{ED} someone@laptop with words

  {OTHER}
{ED}
command="rm -rf /" {ED}
restrict,pty {ED}
ssh-ed25519 AAAAC3cut
ssh-dss AAAAB3NzaC1kc3MAAACBAP
<html>{ED}</html>
-----BEGIN OPENSSH PRIVATE KEY-----
"""
    assert taken(text, site) == (f"{ED} gh:ada", f"{OTHER} gh:ada")


@given(st.text(max_size=200), st.text(max_size=200))
def test_whatever_a_site_says_gives_keys_that_openssh_reads(before, after):
    lines = imported_keys._keys(f"{before}\n{ED} {after}")

    assert ED in lines
    assert all(re.fullmatch(r"[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,3}", line) for line in lines)


def test_openssh_reads_them(site):
    (line,) = taken(ED, site)

    said = subprocess.run(
        ["ssh-keygen", "-l", "-f", "-"], input=line, text=True, capture_output=True, check=True
    )
    assert "gh:ada" in said.stdout


def test_a_name_is_no_path(site):
    site.texts["/ada%2F..%2Fx.keys"] = ED

    assert imported_keys.fetch(["gh:ada/../x"], site.env, Quiet())


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("gh:ada", None, "GitHub knows no `ada`"),
        ("lp:ada", None, "Launchpad knows no `ada`"),
        ("gh:ada", "", "GitHub shows no ssh keys for `ada`"),
        ("gh:ada", "<html>\n", "GitHub shows no ssh keys for `ada`"),
    ],
)
def test_a_name_without_keys(site, name, text, words):
    site.texts = {"/ada.keys": text, "/~ada/+sshkeys": text}

    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        imported_keys.fetch([name], site.env, Quiet())

    assert name in caught.value.hint


def test_no_network_and_no_pin(cluster, site):
    site.shutdown()
    site.server_close()

    with pytest.raises(FetchError, match="connection refused") as caught:
        state.open_state(cluster).secrets(cluster, site.env)

    assert "asks once" in caught.value.hint
    assert caught.value.exit_code == 1
    assert not (tmp := state.location(cluster.source) / "imported_keys.json").exists(), tmp


def test_all_or_none(cluster, site):
    site.texts = {"/ada.keys": ED}

    with pytest.raises(ConfigError, match="Launchpad"):
        state.open_state(cluster).secrets(cluster, site.env)

    assert not (state.location(cluster.source) / "imported_keys.json").exists()


def test_a_refresh_takes_what_is_there_now(cluster, site):
    site.texts = {"/ada.keys": ED, "/~ada/+sshkeys": OTHER}
    opened = state.open_state(cluster)
    opened.secrets(cluster, site.env)
    site.texts["/ada.keys"] = OTHER

    before, now = opened.refresh(cluster, site.env, Quiet())

    assert before["gh:ada"].keys == (f"{ED} gh:ada",)
    assert now["gh:ada"].keys == (f"{OTHER} gh:ada",)
    assert opened.secrets(cluster, site.env).authorized_keys["ops"] == (f"{OTHER} gh:ada",)


def test_a_refresh_that_fails_changes_nothing(cluster, site):
    site.texts = {"/ada.keys": ED, "/~ada/+sshkeys": OTHER}
    opened = state.open_state(cluster)
    opened.secrets(cluster, site.env)
    pins = (opened.path / "imported_keys.json").read_bytes()
    site.texts = {"/ada.keys": OTHER}

    with pytest.raises(ConfigError):
        opened.refresh(cluster, site.env, Quiet())

    assert (opened.path / "imported_keys.json").read_bytes() == pins


def test_a_refresh_forgets_names_that_are_gone(cluster, site):
    site.texts = {"/ada.keys": ED, "/~ada/+sshkeys": OTHER}
    opened = state.open_state(cluster)
    opened.secrets(cluster, site.env)
    less = replace(cluster, users=cluster.users[1:])

    _, now = opened.refresh(less, site.env, Quiet())

    assert list(now) == ["gh:ada"]
    assert list(json.loads((opened.path / "imported_keys.json").read_bytes())) == ["gh:ada"]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"gh:ada": 1}', b'{"gh:ada": {"keys": ["x"], "fetched": ""}}']
)
def test_a_damaged_pin_is_told_and_not_overwritten(cluster, site, content):
    opened = state.open_state(cluster)
    (opened.path / "imported_keys.json").write_bytes(content)

    with pytest.raises(StateError, match=r"imported_keys\.json` is damaged"):
        opened.secrets(cluster, site.env)

    assert site.asked == []
    assert (opened.path / "imported_keys.json").read_bytes() == content


def test_a_state_that_must_be_there_is_not_filled(cluster, site):
    site.texts = {"/ada.keys": f"{ED}\n", "/~ada/+sshkeys": f"{OTHER}\n"}
    made = state.open_state(cluster)
    with pytest.raises(StateError, match=r"no host key for `node0`.*--require-state"):
        made.secrets(cluster, site.env, create=False)
    made.secrets(replace(cluster, users=()), site.env)

    with pytest.raises(StateError) as caught:
        made.secrets(cluster, site.env, create=False)

    place = made.path / "imported_keys.json"
    assert caught.value.message == (
        f"`{place}` has no keys for `gh:ada`, `lp:ada`, and `--require-state` forbids fetching them"
    )
    assert site.asked == []
    assert not place.exists()
    made.secrets(cluster, site.env)
    assert made.secrets(cluster, site.env, create=False).authorized_keys
    assert len(site.asked) == 2
