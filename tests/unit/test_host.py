"""What this machine is called, and how its commands are typed."""

from __future__ import annotations

import pytest

from piimage import host


@pytest.mark.parametrize(
    ("who", "installed", "words"),
    [
        ((0, None), False, "piimage"),
        ((0, "0"), False, "piimage"),
        ((0, "1000"), True, "sudo piimage"),
        ((0, "1000"), False, 'sudo "$(which piimage)"'),
        ((1000, None), True, "sudo piimage"),
        ((1000, None), False, 'sudo "$(which piimage)"'),
    ],
)
def test_how_root_runs_it(monkeypatch, tmp_path, who, installed, words):
    """A name in a virtual environment means nothing to sudo, and who called us by sudo has no root's shell."""
    user, caller = who
    monkeypatch.setattr("os.geteuid", lambda: user)
    monkeypatch.delenv("SUDO_UID", raising=False)
    if caller is not None:
        monkeypatch.setenv("SUDO_UID", caller)
    monkeypatch.setattr(host, "_SECURE_PATH", f"/nowhere:{tmp_path}")
    monkeypatch.setenv("PATH", "/usr/bin")
    if installed:
        (tmp_path / "piimage").write_text("#!/bin/sh\n")
        (tmp_path / "piimage").chmod(0o755)

    assert host.as_root() == words
