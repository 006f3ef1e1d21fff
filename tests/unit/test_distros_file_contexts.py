"""Labels of paths, held against matchpathcon(8), which is libselinux's own answer."""

from __future__ import annotations

import os
import subprocess
from itertools import groupby

import phony_facts as phony
import pytest
from fixtures import fedora

from piimage.distros.file_contexts import contexts, parse

SUBSTITUTES = "/run /var/run\n/usr/local/lib /usr/lib\n/var/home /home\n"
#: Order, exact names, alternatives, classes, repeats, escapes: what expressions of policies are made of.
ODD = """\
# a comment
/opt/.*		system_u:object_r:usr_t:s0
/opt/(a|bb)/x?	system_u:object_r:either_t:s0
/opt/a\\.b	system_u:object_r:dot_t:s0
/opt/[[:digit:]]+	--	system_u:object_r:digit_t:s0
/opt/v[0-9]{2,3}(/.*)?	system_u:object_r:many_t:s0
/opt/exact	system_u:object_r:exact_t:s0
/opt/ex.*	system_u:object_r:later_t:s0
/opt/none	<<none>>
/opt/nob	-b	system_u:object_r:disk_t:s0
(/srv|/mnt)/data	system_u:object_r:top_t:s0
/opt/line.feed	system_u:object_r:dotall_t:s0
"""
TABLES = {"fedora": (fedora.CONTEXTS, fedora.HOMES), "odd": (ODD, "")}
PATHS = {
    "fedora": """\
/ /etc /etc/passwd /etc/passwd- /etc/passwd.x /etc/shadow /etc/shadow- /etc/NetworkManager /home /home/ada
/home/ada/.ssh /home/ada/.ssh/id /home/ada/x/.ssh /usr/bin/x /usr/lib/x/bin/y /usr/local/lib/x /usr/local/bin/z
/usr/share/lib /proc /boot /boot/efi/config.txt /var/lib /var/lib/cloud/seed /var/home/ada/.ssh /run/x /lost
/etc/chrony.conf /etc/chrony-conf /etc/localtime /etc/ssh/ssh_host_rsa_key /etc/ssh/ssh_host_rsa_key.pub""".split(),
    "odd": [
        *"/opt /opt/x /opt/a /opt/a/x /opt/bb/x /opt/bb /opt/a.b /opt/aab /opt/12 /opt/1a /opt/v1 /opt/v12".split(),
        *"/opt/v123/deep /opt/v1234 /opt/exact /opt/exacter /opt/none /opt/nob /srv/data /mnt/data /srv /mnt".split(),
        *"/mnt/x /data /opt/line-feed".split(),
    ],
}  # fmt: skip
KINDS = ("file", "dir", "link")


def oracle(folder, cases):
    """What matchpathcon says of `(path, kind)`; `<<none>>` is None."""
    said = {}
    for kind, group in groupby(sorted(cases, key=lambda case: case[1]), key=lambda case: case[1]):
        paths = [path for path, _ in group]
        argv = ["matchpathcon", "-f", folder / "file_contexts", "-m", kind, *paths]
        path = f"{os.environ['PATH']}:/usr/sbin"
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}
        )
        for line in done.stdout.splitlines():
            name, _, label = line.partition("\t")
            said[name, kind] = None if label == "<<none>>" else label
    return said


@pytest.mark.parametrize("name", TABLES)
def test_labels_are_those_of_libselinux(name, tmp_path):
    texts = TABLES[name]
    for suffix, text in zip(("", ".homedirs", ".subs_dist"), (*texts, SUBSTITUTES), strict=True):
        (tmp_path / f"file_contexts{suffix}").write_text(text)
    cases = [(path, kind) for path in PATHS[name] for kind in KINDS]

    ours = {case: parse(texts, ("", SUBSTITUTES)).label(*case) for case in cases}

    theirs = oracle(tmp_path, cases)
    assert len(theirs) > len(cases) // 2
    assert {case: ours[case] for case in theirs} == theirs
    assert {ours[case] for case in cases if case not in theirs} <= {None}


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ("SELINUX=enforcing\nSELINUXTYPE=targeted\n", True),
        ("# SELINUX=disabled\n SELINUX = permissive\nSELINUXTYPE=targeted\n", True),
        ("SELINUX=disabled\nSELINUXTYPE=targeted\n", False),
        ("SELINUX=enforcing\nSELINUXTYPE=mls\n", False),
        ("", False),
    ],
)
def test_where_there_is_a_policy(config, found):
    facts = phony.with_files(
        phony.debian(),
        {
            "/etc/selinux/config": phony.text(config),
            "/etc/selinux/targeted/contexts/files/file_contexts": phony.text(fedora.CONTEXTS),
        },
    )

    assert (contexts(facts) is not None) is found


def test_what_is_no_line_is_left_out():
    text = "/a\n/b -- c d e\n/c[\tsystem_u:object_r:broken_t:s0\n/d\tsystem_u:object_r:d_t:s0\n"

    found = parse((text,))

    assert [found.label(path, "file") for path in ("/a", "/b", "/c[", "/d")] == [
        None, None, None, "system_u:object_r:d_t:s0",
    ]  # fmt: skip
