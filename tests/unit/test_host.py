"""What this machine is called, and how its commands are typed."""

from __future__ import annotations

import pytest

from piimage import host


@pytest.mark.parametrize(
    ("user", "installed", "words"),
    [
        (0, False, "piimage"),
        (1000, True, "sudo piimage"),
        (1000, False, 'sudo "$(which piimage)"'),
    ],
)
def test_how_root_runs_it(monkeypatch, tmp_path, user, installed, words):
    """A name in a virtual environment means nothing to sudo."""
    monkeypatch.setattr("os.geteuid", lambda: user)
    monkeypatch.setattr(host, "_SECURE_PATH", f"/nowhere:{tmp_path}")
    monkeypatch.setenv("PATH", "/usr/bin")
    if installed:
        (tmp_path / "piimage").write_text("#!/bin/sh\n")
        (tmp_path / "piimage").chmod(0o755)

    assert host.as_root() == words
