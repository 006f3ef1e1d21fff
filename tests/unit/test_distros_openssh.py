"""What OpenSSH itself makes of a file is what we say it does."""

import subprocess

import pytest

from piimage.distros.openssh import reads_drop_ins, split

OWN = "HostName from.a.drop-in"


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        ("Include {}/*.conf\nHost *\n", True),
        ("# Include {}/*.conf\nHost *\n", False),
        ("Host *\n    SendEnv LANG\n    Include {}/*.conf\n", True),
        ("Match all\ninclude={}/*.conf\n", True),
        ("Host elsewhere\n    Include {}/*.conf\n", False),
        ("Host elsewhere\n    Port 7\nHost *\n    Include {}/*.conf\n", True),
        ("Match user nobody-at-all\n    Include {}/*.conf\n", False),
        ('  INCLUDE   "{}/*.conf"', True),
        ("Include none.conf {0}/*\n", True),
        ("Include {}/more/*.conf\n", False),
        ("Port 22\n", False),
        ("", False),
    ],
)
@pytest.mark.processes
def test_drop_ins_are_read_when_ssh_reads_them(tmp_path, text, reads):
    folder = tmp_path / "ssh_config.d"
    folder.mkdir()
    (folder / "our.conf").write_text(f"Host *\n{OWN}\n")
    config = tmp_path / "config"
    config.write_text(text.format(folder))

    done = subprocess.run(
        ["ssh", "-G", "-F", config, "node1"], capture_output=True, text=True, check=True
    )

    assert (OWN.lower() in done.stdout.lower()) is reads
    assert reads_drop_ins(text.format(folder), str(folder)) is reads


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        ("Include /etc/ssh/sshd_config.d/*.conf\nHostKey /k\n", True),
        ("Include sshd_config.d/*.conf\n", True),
        ("Include other.d/*.conf\n", False),
        ("hostkey /k\nInclude /etc/ssh/sshd_config.d/*.conf\n", False),
        ("# HostKey /k\nPort 22\nInclude /etc/ssh/sshd_config.d/*.conf\n", True),
    ],
)
def test_what_stands_before_the_drop_ins_has_the_first_word(text, reads):
    assert reads_drop_ins(text, "/etc/ssh/sshd_config.d", before=("hostkey",)) is reads


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("  Port 22 ", ("Port", "22")),
        ("port=22", ("port", "22")),
        ("Port = 22", ("Port", "22")),
        ("UsePAM", ("UsePAM", "")),
        ("# Port 22", ("", "")),
        (" ", ("", "")),
    ],
)
def test_a_line_is_a_keyword_and_a_value(line, parts):
    assert split(line) == parts
