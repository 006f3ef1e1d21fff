"""`piimage build` and `piimage state` up to where the appliance would start, as the user types them."""

from __future__ import annotations

import functools
import http.server
import signal
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from piimage.bases.importing import import_base
from piimage.bases.store import Store
from piimage.build import Made
from piimage.cli.build import following
from piimage.cli.main import main
from piimage.progress import Quiet
from piimage.state import keys

KEY = " ".join(keys.generate("ada")[1].split()[:2])
YAML = """\
version: 1
name: abacus
base: phony
users:
  - {name: ada, uid: 1000, rename_from: auto}
network:
  wired: {subnet: 10.9.0.0/16, first: 10.9.1.1}
nodes: {count: 5, name: "node{n}", head: 0}
"""


@pytest.fixture
def home(tmp_path):
    (tmp_path / "cluster.yaml").write_text(YAML)
    return tmp_path


@pytest.fixture(scope="module")
def cache(tmp_path_factory, small_master):
    """A cache with the base; no test here makes a variant in it."""
    root = tmp_path_factory.mktemp("cache")
    import_base(small_master, store=Store(root), progress=Quiet(), name="phony")
    return root


@dataclass(frozen=True)
class Done:
    returncode: int | str
    stdout: str
    stderr: str


@pytest.fixture
def piimage(home, cache, monkeypatch, capsys):
    """Runs piimage there."""
    monkeypatch.setenv("PIIMAGE_CACHE", str(cache))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.chdir(home)

    def run(*argv):
        monkeypatch.setattr(sys, "argv", ["piimage", *map(str, argv)])
        with pytest.raises(SystemExit) as caught:
            main()
        done = Done(caught.value.code, *capsys.readouterr())
        assert "unexpected" not in done.stderr
        return done

    return run


class Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextmanager
def serving(directory):
    """The URL of a server that shows the files of a directory."""
    handler = functools.partial(Files, directory=str(directory))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def untouched(home):
    return not any(p.name in {"dist", "cluster.state"} for p in home.iterdir())


def test_a_base_that_is_not_here(piimage, home):
    (home / "cluster.yaml").write_text(YAML.replace("base: phony", "base: debian-13"))

    done = piimage("build", "--node", "3")

    assert done.returncode == 1
    assert done.stderr.splitlines()[-2:] == [
        "error: base `debian-13` is not here",
        "hint: run `piimage base make debian-13`",
    ]
    assert untouched(home)


def test_a_wrong_cluster_yaml(piimage, home):
    (home / "cluster.yaml").write_text(YAML.replace("users:", "usres:"))

    done = piimage("build", "--node", "3")

    assert done.returncode == 2
    assert "did you mean `users`" in done.stderr
    assert "cluster.yaml:4:1" in done.stderr
    assert untouched(home)


def test_no_cluster_yaml(piimage, home):
    (home / "cluster.yaml").unlink()

    done = piimage("build", "--all")

    assert done.returncode == 2
    assert "cluster.yaml" in done.stderr
    assert untouched(home)


@pytest.mark.parametrize("name", ["9", "node9", "-1", "03", "", "NODE1"])
def test_a_node_that_is_not_there(piimage, home, name):
    done = piimage("build", f"--node={name}")

    assert done.returncode == 2
    assert done.stderr.splitlines()[-2:] == [
        f"error: cluster `abacus` has no node `{name}`",
        "hint: it has 5: node0 to node4, or 0 to 4",
    ]
    assert untouched(home)


def test_node_and_all(piimage, home):
    done = piimage("build", "--node", "1", "--all")

    assert done.returncode == 2
    assert "`--node`" in done.stderr


def test_an_unknown_format(piimage):
    done = piimage("build", "--all", "--format", "foo")

    assert done.returncode == 2
    assert "`foo` is not a format; one of img, img.xz, img.zst, qcow2" in " ".join(
        done.stderr.split()
    )


def test_an_output_that_is_a_file(piimage, home):
    (home / "out").write_text("mine\n")

    done = piimage("build", "--all", "-o", "out")

    assert done.returncode == 1
    assert "error: `out` is not a directory" in done.stderr
    assert (home / "out").read_text() == "mine\n"


@pytest.mark.parametrize(
    ("tool", "argv"),
    [
        ("mcopy", ["--all"]),
        ("e2fsck", ["--node", "1"]),
        ("xz", ["--node", "1", "--format", "img.xz"]),
        ("qemu-img", ["--node", "1", "--format", "qcow2"]),
    ],
)
def test_a_missing_tool_is_told_before_the_appliance_starts(piimage, home, monkeypatch, tool, argv):
    monkeypatch.setattr("piimage.run.available", lambda name: name != tool)

    done = piimage("build", *argv)

    assert done.returncode == 3
    assert f"error: `{tool}` is not installed\nhint: on Debian: `apt-get install " in done.stderr
    assert untouched(home)


def test_require_state(piimage, home):
    done = piimage("build", "--all", "--require-state")

    assert done.returncode == 1
    assert "--require-state" in done.stderr
    assert "piimage state import FILE" in done.stderr
    assert untouched(home)


@pytest.mark.parametrize(
    "content", [b'{"version": 1, "cluster": "other"}', b'{"version": 1, "cluster": null}']
)
def test_another_clusters_directory(piimage, home, content):
    (home / "out").mkdir()
    (home / "out/manifest.json").write_bytes(content)

    done = piimage("build", "--all", "-o", "out")

    assert done.returncode == 1
    assert "holds the build of cluster" in done.stderr
    assert (home / "out/manifest.json").read_bytes() == content
    assert untouched(home)


def test_a_base_with_another_digest(piimage, home, small_master):
    (home / "image.img").symlink_to(small_master)
    base = "base: {path: ./image.img, sha256: " + "a" * 64 + "}"
    (home / "cluster.yaml").write_text(YAML.replace("base: phony", base))

    done = piimage("build", "--node", "1")

    assert done.returncode == 4
    assert "sha256" in done.stderr
    assert untouched(home)


def test_state_there_and_back(piimage, home):
    made = piimage("state", "init")
    again = piimage("state", "init")
    out = piimage("state", "export", "copy.tar")
    twice = piimage("state", "export", "copy.tar")
    inside = piimage("state", "import", "copy.tar")

    assert (made.returncode, out.returncode) == (0, 0)
    assert "cluster.state" in made.stdout
    assert (again.returncode, twice.returncode, inside.returncode) == (1, 1, 1)
    assert (home / "copy.tar").stat().st_mode & 0o777 == 0o600
    before = (home / "cluster.state/ca").read_bytes()
    (home / "cluster.state").rename(home / "old")
    assert piimage("state", "import", "copy.tar").returncode == 0
    assert (home / "cluster.state/ca").read_bytes() == before


def test_state_refresh(piimage, home):
    nothing = piimage("state", "refresh")
    (home / "cluster.yaml").write_text(YAML.replace("uid: 1000,", "uid: 1000, ssh_keys: [gh:ada],"))
    site = home / "site"
    site.mkdir()
    (site / "ada.keys").write_text(f"{KEY}\n")
    with serving(site) as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "*")
        patch.setenv("PIIMAGE_GITHUB_URL", url)
        first, again = piimage("state", "refresh"), piimage("state", "refresh")
        (site / "ada.keys").unlink()
        unknown = piimage("state", "refresh")

    assert (nothing.returncode, nothing.stdout) == (0, "no `gh:` or `lp:` names in `ssh_keys`\n")
    assert (first.returncode, first.stdout) == (0, "gh:ada: 1 key, 1 new, 0 gone\n")
    assert again.stdout == "gh:ada: 1 key, 0 new, 0 gone\n"
    assert unknown.returncode == 2
    assert "error: GitHub knows no `ada`" in unknown.stderr
    assert KEY in (home / "cluster.state/imported_keys.json").read_text()


def test_state_of_a_wrong_cluster_yaml(piimage, home):
    (home / "cluster.yaml").write_text("name: x\n")

    for argv in (("init",), ("export", "x.tar"), ("import", "x.tar")):
        assert piimage("state", *argv).returncode == 2
    assert untouched(home)


def test_the_image_is_checked_against_cluster_yaml_before_anything_is_made(piimage, home):
    """A group that the base lacks is known once its facts are read."""
    text = YAML.replace("rename_from: auto", "rename_from: nobody-here")
    (home / "cluster.yaml").write_text(text)

    done = piimage("build", "--node", "1")

    assert done.returncode == 2
    assert "nobody-here" in done.stderr
    assert untouched(home)


@pytest.mark.parametrize(
    ("names", "suffix", "everything", "words"),
    [
        (["node0", "node1"], "stamp", True, ["boot --all --smoke`", "flash --all`"]),
        (["node0"], "img", True, ["boot --all --smoke`", "flash --all`"]),
        (["node1"], "img", False, ["boot --node node1`", "flash /dev/sdX --node node1`"]),
        (["node1"], "img.zst", False, []),
        (["node0", "node1"], "img", False, []),
        ([], "img", True, []),
    ],
)
def test_what_comes_next(names, suffix, everything, words):
    made = [Made(name, "b", "i", "v", (Path(f"dist/{name}.{suffix}"),), True) for name in names]

    said = "\n".join(following(made, all_nodes=everything))

    assert [word for word in words if word not in said] == []
    assert bool(said) == bool(words)
