"""Small texts from a server of the test's own: whole, bounded, and never out of https."""

from __future__ import annotations

import http.server
import re
import threading
import time
import urllib.request
from email.message import Message

import pytest

from piimage import web
from piimage.errors import FetchError


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by path."""

    server: Site

    def do_GET(self):
        self.server.seen.append((self.path, self.headers["User-Agent"]))
        getattr(self, self.path.strip("/").partition("/")[0].replace("-", "_"), self.none)()

    def log_message(self, *_):
        pass

    def none(self):
        self.send_error(404)

    def text(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write("grüße\n".encode())

    def busy(self):
        self.send_error(503)

    def moved(self):
        self.send_response(302)
        self.send_header("Location", "/text")
        self.end_headers()

    def away(self):
        self.send_response(302)
        self.send_header("Location", "file:///etc/passwd")
        self.end_headers()

    def round(self):
        self.send_response(302)
        self.send_header("Location", "/round")
        self.end_headers()

    def huge(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"x" * (web._LARGEST + 1))

    def cut(self):
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"short")

    def mute(self):
        time.sleep(2)

    def drip(self):
        self.send_response(200)
        self.end_headers()
        for _ in range(30):
            self.wfile.write(b"x")
            self.wfile.flush()
            time.sleep(0.1)


class Site(http.server.ThreadingHTTPServer):
    """`seen` holds path and User-Agent of each request, in order."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen = []
        self.url = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def site():
    server = Site()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


def test_a_text(site):
    assert web.read_text(f"{site.url}/text", hint="h") == "grüße\n"
    assert site.seen[0][1].startswith("piimage/")


def test_a_text_elsewhere_on_the_site(site):
    assert web.read_text(f"{site.url}/moved", hint="h") == "grüße\n"


def test_a_text_that_is_not_there(site):
    assert web.read_text(f"{site.url}/absent", hint="h") is None


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("busy", "503 service unavailable"),
        ("huge", "larger than 256 kib"),
        ("cut", "cut off"),
        ("away", "302 found - redirection to url 'file:///etc/passwd' is not allowed"),
        ("round", "infinite loop"),
    ],
)
def test_what_is_no_whole_answer(site, path, words):
    with pytest.raises(FetchError, match=re.escape(words)) as caught:
        web.read_text(f"{site.url}/{path}", hint="try later")

    assert caught.value.message.startswith(f"127.0.0.1:{site.server_port} gave nothing: ")
    assert caught.value.hint == "try later"


def test_a_server_that_says_nothing(site, monkeypatch):
    monkeypatch.setattr(web, "_WAIT", 0.2)

    with pytest.raises(FetchError, match="timed out"):
        web.read_text(f"{site.url}/mute", hint="h")


def test_a_server_that_never_ends(site, monkeypatch):
    monkeypatch.setattr(web, "_DEADLINE", 0.3)

    with pytest.raises(FetchError, match=r"did not end within 0\.3 s"):
        web.read_text(f"{site.url}/drip", hint="h")


def test_nobody_listens(site):
    url = f"{site.url}/text"
    site.shutdown()
    site.server_close()

    with pytest.raises(FetchError, match="connection refused"):
        web.read_text(url, hint="h")


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher:x", "nonsense", "http://", ""]
)
def test_what_is_no_web_address(url):
    with pytest.raises(FetchError):
        web.read_text(url, hint="h")


def test_never_out_of_https():
    handler = web._Redirects()
    request = urllib.request.Request("https://example.org/x")

    with pytest.raises(ValueError, match="without https"):
        handler.redirect_request(request, None, 302, "", Message(), "http://example.org/y")
    followed = handler.redirect_request(request, None, 302, "", Message(), "https://example.net/y")
    assert followed.full_url == "https://example.net/y"
