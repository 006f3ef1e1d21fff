from __future__ import annotations

import re

import phony_facts as phony
import pytest
from delta_files import file_at
from hypothesis import given
from hypothesis import strategies as st

from piimage.components import takeover
from piimage.components.accounts import Accounts, first_human
from piimage.errors import UnsupportedError


def rows(accounts, name):
    return file_at(accounts.files(), f"/etc/{name}").content.decode().splitlines()


def test_databases_without_edits_come_out_byte_for_byte():
    facts = phony.raspios()

    files = Accounts(facts).files()
    assert files
    for path in files:
        entry = file_at(files, path)
        assert entry.content == facts.files[path].content
        assert (entry.mode, entry.gid) == (facts.files[path].mode, facts.files[path].gid)


def test_lines_that_are_no_accounts_are_kept():
    facts = phony.with_files(
        phony.debian(), {"/etc/passwd": phony.text("+::::::\n# hm\n" + phony.SYSTEM_PASSWD)}
    )
    accounts = Accounts(facts)
    accounts.put_group("a", 1000)
    accounts.put_user(phony.user("a"))

    assert rows(accounts, "passwd")[:2] == ["+::::::", "# hm"]
    assert rows(accounts, "passwd")[-1] == "a:x:1000:1000::/home/a:/bin/bash"


def test_a_new_user_is_locked_and_never_looks_expired():
    accounts = Accounts(phony.debian())

    accounts.put_user(phony.user("a"))

    assert rows(accounts, "shadow")[-1] == "a:!::0:99999:7:::"


def test_subordinate_ids_do_not_overlap():
    accounts = Accounts(phony.raspios())
    for uid, name in enumerate("abc", start=2000):
        accounts.put_user(phony.user(name, uid))

    starts = [line.split(":")[1] for line in rows(accounts, "subuid")]

    assert starts == ["100000", "165536", "231072", "296608"]


def test_rename_reaches_every_database():
    accounts = Accounts(phony.raspios())
    old = first_human(accounts)
    assert old is not None

    done = takeover.apply(phony.user("federico", 1500), old, accounts)

    files = accounts.files()
    texts = {path: file_at(files, path).content.decode() for path in files}
    assert [p for p, t in texts.items() if re.search(r"(^|[:,])pi([:,]|$)", t, re.MULTILINE)] == []
    assert done.gids == ((1000, 1500),)
    assert "federico:x:1500:" in texts["/etc/group"]
    assert "video:x:44:federico\n" in texts["/etc/group"]
    assert "video:*::federico\n" in texts["/etc/gshadow"]
    assert "federico:x:1500:1500:" in texts["/etc/passwd"]
    assert texts["/etc/subuid"] == "federico:100000:65536\n"


def test_a_rename_frees_the_old_number_for_another_user():
    accounts = Accounts(phony.raspios())
    old = first_human(accounts)
    takeover.apply(phony.user("federico", 1001), old, accounts)

    accounts.put_group("ops", 1000)
    accounts.put_user(phony.user("ops", 1000))
    accounts.put_user(phony.user("federico", 1001))

    assert {(a.name, a.uid) for a in accounts.accounts() if a.uid in (1000, 1001)} == {
        ("ops", 1000),
        ("federico", 1001),
    }


def test_taking_over_into_a_shared_group_drops_the_private_one():
    accounts = Accounts(phony.raspios())
    old = first_human(accounts)

    done = takeover.apply(phony.user("fed", 1000, group="users", gid=100), old, accounts)

    assert done.gids == ((1000, 100),)
    assert accounts.gid("pi") is None
    assert accounts.gid("users") == 100


@pytest.mark.parametrize(
    ("user", "message"),
    [
        (phony.user("a", 102), "uid 102 of user `a` belongs to the account `_chrony`"),
        (phony.user("a", 2000, group="b", gid=106), "gid 106 of group `b` belongs to .*`netdev`"),
        (phony.user("a", 2000, group="video", gid=2000), "group `video` with gid 44"),
    ],
)
def test_collisions_with_the_base_name_both(user, message):
    def put():
        accounts = Accounts(phony.debian())
        accounts.put_group(user.group, user.gid)
        accounts.put_user(user)

    with pytest.raises(UnsupportedError, match=message) as caught:
        put()

    assert caught.value.exit_code == 2


def test_open_and_stock_passwords_of_the_base_are_closed():
    facts = phony.with_files(
        phony.debian(),
        {"/etc/shadow": phony.text("root::1::::::\npi:$6$x:1::::::\nx:!*:1::::::\n")},
    )
    accounts = Accounts(facts)

    accounts.lock_open_accounts([])

    assert [line.split(":")[1] for line in rows(accounts, "shadow")] == ["*", "*", "!*"]


names = st.from_regex(r"[a-z_][a-z0-9_-]{0,15}", fullmatch=True)


@given(
    st.lists(
        st.tuples(names, st.integers(1000, 60000)),
        min_size=1,
        max_size=6,
        unique_by=(lambda pair: pair[0], lambda pair: pair[1]),
    )
)
def test_any_users_give_well_formed_databases(pairs):
    accounts = Accounts(phony.debian())
    taken = {account.name for account in accounts.accounts()}
    for name, uid in pairs:
        if name in taken or accounts.gid(name) is not None:
            continue
        accounts.put_group(name, uid)
        accounts.put_user(phony.user(name, uid))
        accounts.join(name, ["video", "sudo"])

    widths = {"passwd": 7, "shadow": 9, "group": 4, "gshadow": 4, "subuid": 3, "subgid": 3}
    for database, width in widths.items():
        lines = [line.split(":") for line in rows(accounts, database)]
        assert all(len(line) == width for line in lines)
        assert len({line[0] for line in lines}) == len(lines)
    uids = [account.uid for account in accounts.accounts()]
    assert len(set(uids)) == len(uids)


def test_a_password_in_passwd_itself_opens_nothing():
    """pam_unix(8) looks into shadow only where passwd says `x`: an empty field would let anybody in."""
    passwd = (
        "root::0:0:root:/root:/bin/bash\n"
        "guest::1500:1500::/home/guest:/bin/bash\nlab:$6$a$b:1501:1501::/home/lab:/bin/sh\n"
        "shut:*:1502:1502::/home/shut:/bin/sh\nada::1000:1000::/home/ada:/bin/bash\n+::::::\n"
    )
    shadow = "root::20400:0:99999:7:::\nlab::20400:0:99999:7:::\n+::::::::\n"
    facts = phony.with_files(
        phony.debian(),
        {"/etc/passwd": phony.text(passwd), "/etc/shadow": phony.text(shadow, 0o640, 42)},
    )
    accounts = Accounts(facts)
    accounts.put_user(phony.user("ada"))
    accounts.lock_open_accounts(["ada"])

    assert [line.split(":")[:2] for line in rows(accounts, "passwd")] == [
        ["root", "x"], ["guest", "x"], ["lab", "x"], ["shut", "*"], ["ada", "x"], ["+", ""],
    ]  # fmt: skip
    assert {line.split(":")[0]: line.split(":")[1] for line in rows(accounts, "shadow")} == {
        "root": "*", "lab": "*", "+": "", "ada": "!", "guest": "*",
    }  # fmt: skip
    assert all(line.count(":") == 8 for line in rows(accounts, "shadow"))
