from __future__ import annotations

import subprocess
from dataclasses import replace

import phony_facts as phony
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piimage.cluster import Sudo
from piimage.components import users
from piimage.delta import Absent, Directory, File, Slot, Tree
from piimage.errors import PiimageError, UnsupportedError


def image(facts=None, **more):
    cluster = phony.cluster(**more)
    return users.image(cluster, cluster.nodes[0].role, facts or phony.debian())


def content(part, path):
    return part.delta.entries[path].content.decode()


def test_a_new_user_gets_home_skeleton_and_room_for_keys():
    entries = image().delta.entries

    assert entries["/home/ops"] == Directory(0o700, 1001, 1001)
    assert entries["/home/ops/.ssh"] == Directory(0o700, 1001, 1001)
    assert entries["/home/ops/.bashrc"] == File(b"# bash\n", 0o644, 1001, 1001)
    assert entries["/home/ops/.ssh/authorized_keys"] == Slot(16384, 0o600, 1001, 1001)
    assert entries["/home/ops/.Xauthority"] == Absent()


def test_sudo_policies():
    part = image(
        users=(
            phony.user("a", 1000, sudo=Sudo.NOPASSWD),
            phony.user("b", 1001, sudo=Sudo.PASSWORD),
            phony.user("c", 1002),
        )
    )

    assert content(part, "/etc/sudoers.d/010_a") == "a ALL=(ALL:ALL) NOPASSWD: ALL\n"
    assert part.delta.entries["/etc/sudoers.d/010_a"].mode == 0o440
    assert [p for p in part.delta.entries if p.startswith("/etc/sudoers.d/")] == [
        "/etc/sudoers.d/010_a"
    ]
    assert "sudo:x:27:b\n" in content(part, "/etc/group")


def test_sudo_with_password_needs_no_group_of_the_base():
    facts = phony.debian()
    facts = phony.with_files(facts, {"/etc/group": phony.text("root:x:0:\n")})

    part = image(facts, users=(phony.user("b", sudo=Sudo.PASSWORD),))

    assert content(part, "/etc/sudoers.d/010_b") == "b ALL=(ALL:ALL) ALL\n"


def test_hardware_groups_that_the_base_lacks_are_left_out():
    group = content(image(), "/etc/group")

    assert "video:x:44:federico\n" in group
    assert "gpio" not in group


def test_an_unknown_group_is_refused_by_name():
    with pytest.raises(UnsupportedError, match="group `wizards` of user `a` is not in the base"):
        image(users=(phony.user("a", groups=("wizards",)),))


def test_a_shell_that_is_not_there_is_refused():
    with pytest.raises(UnsupportedError, match="shell `/bin/zsh` of user `a`"):
        image(users=(phony.user("a", shell="/bin/zsh"),))


def test_comments_of_etc_shells_are_no_shells():
    said = phony.text("# /etc/shells: valid login shells, no /bin/zsh\n/bin/sh\n  /bin/bash\n")
    facts = phony.with_files(phony.debian(), {"/etc/shells": said})

    with pytest.raises(UnsupportedError) as caught:
        image(users=(phony.user("a", shell="/bin/zsh"),), facts=facts)
    assert caught.value.hint == "the base has /bin/sh, /bin/bash"


def test_rename_moves_the_home_and_leaves_no_trace_of_the_old_name():
    facts = phony.raspios()
    part = image(facts, users=(phony.user("federico", 1200, rename_from="auto"),))
    entries = part.delta.entries

    assert entries["/home/federico"] == Tree("/home/pi", ((1000, 1200),), ((1000, 1200),))
    assert entries["/home/federico/.Xauthority"] == Absent()
    assert "/home/federico/.bashrc" not in entries
    assert entries["/etc/sudoers.d/010_pi-nopasswd"] == Absent()
    assert "/etc/sudoers.d/010_at-export" not in entries
    assert "autologin-user=federico\n" in content(part, "/etc/lightdm/lightdm.conf")
    console = "/etc/systemd/system/getty@tty1.service.d/autologin.conf"
    assert "--autologin federico --noclear" in content(part, console)


def test_rename_takes_the_wizard_out():
    part = image(phony.raspios())
    entries = part.delta.entries

    assert part.mask == ("userconfig.service",)
    assert part.enable == ("getty@tty1.service",)
    for path in (
        "/etc/ssh/sshd_config.d/rename_user.conf",
        "/etc/sudoers.d/010_wiz-nopasswd",
        "/boot/firmware/userconf.txt",
        "/home/rpi-first-boot-wizard",
    ):
        assert entries[path] == Absent()
    assert "rpi-first-boot-wizard" not in content(part, "/etc/passwd") + content(part, "/etc/group")


def test_a_user_named_like_the_bases_own_takes_it_over():
    part = image(phony.raspios(), users=(phony.user("pi", 1000, sudo=Sudo.NOPASSWD),))

    assert part.delta.entries["/home/pi"] == Tree("/home/pi")
    assert "pi:!::0:99999:7:::\n" in content(part, "/etc/shadow")
    assert "$6$stock" not in content(part, "/etc/shadow")


def test_renamed_user_without_sudo_loses_the_bases_sudo():
    part = image(phony.raspios(), users=(phony.user("fed", rename_from="pi"),))

    assert "sudo:x:27:\n" in content(part, "/etc/group")
    assert "/etc/sudoers.d/010_fed" not in part.delta.entries


def test_a_sudoers_file_with_other_rules_keeps_those():
    both = phony.text("pi ALL=(ALL) NOPASSWD: ALL\n%lab ALL=(ALL) ALL\n", 0o440)
    facts = phony.with_files(phony.raspios(), {"/etc/sudoers.d/lab": both})

    part = image(facts)

    assert part.delta.entries["/etc/sudoers.d/lab"] == File(b"%lab ALL=(ALL) ALL\n", mode=0o440)


@pytest.mark.parametrize(
    ("user", "message"),
    [
        (phony.user("a", rename_from="nobodyhere"), "renamed from `nobodyhere`"),
        (phony.user("sshd", 1000), "`sshd` is a system account of the base \\(uid 993\\)"),
        (phony.user("a", 993), "uid 993 of user `a` belongs to the account `sshd`"),
    ],
)
def test_impossible_users(user, message):
    with pytest.raises(UnsupportedError, match=message):
        image(users=(user,))


def test_own_user_of_the_base_blocks_its_number():
    with pytest.raises(UnsupportedError, match=r"uid 1000 of user `a` belongs .* `pi`"):
        image(phony.raspios(), users=(phony.user("a", 1000),))


def test_stamp_lists_only_users_with_a_hash():
    cluster = phony.cluster()
    hashes = {"federico": phony.HASH, "root": "$6$r"}
    secrets = phony.secrets(cluster, passwords=hashes)

    stamp = users.stamp(cluster, cluster.nodes[0], phony.debian(), secrets)

    assert stamp.user_data["chpasswd"] == {
        "expire": False,
        "users": [
            {"name": "federico", "password": phony.HASH, "type": "hash"},
            {"name": "root", "password": "$6$r", "type": "hash"},
        ],
    }


def test_without_hashes_nothing_is_asked_of_chpasswd():
    cluster = phony.cluster()

    stamp = users.stamp(
        cluster, cluster.nodes[0], phony.debian(), phony.secrets(cluster, passwords={})
    )

    assert "chpasswd" not in stamp.user_data


def test_the_clusters_key_opens_the_first_users_door_only():
    cluster = phony.cluster()
    keys = {"federico": ("ssh-ed25519 A fed",), "ops": ("ssh-ed25519 B ops ",)}
    secrets = phony.secrets(cluster, authorized_keys=keys)

    filled = users.stamp(cluster, cluster.nodes[1], phony.debian(), secrets).slots

    assert filled["/home/federico/.ssh/authorized_keys"] == (
        b"ssh-ed25519 AAAAC3cluster pico5\nssh-ed25519 A fed\n"
    )
    assert filled["/home/ops/.ssh/authorized_keys"] == b"ssh-ed25519 B ops\n"


@settings(max_examples=25, deadline=None)
@given(
    name=st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,20}", fullmatch=True),
    sudo=st.sampled_from([Sudo.PASSWORD, Sudo.NOPASSWD]),
)
def test_visudo_accepts_every_sudoers_file(name, sudo, tmp_path_factory):
    bare = phony.with_files(phony.debian(), {"/etc/group": phony.text("root:x:0:\n")})
    part = image(bare, users=(replace(phony.user("x", 1000, sudo=sudo), name=name),))
    (path,) = [p for p in part.delta.entries if p.startswith("/etc/sudoers.d/")]
    assert "." not in path.rsplit("/", 1)[1]
    file = tmp_path_factory.mktemp("sudoers") / "file"
    file.write_bytes(part.delta.entries[path].content)
    file.chmod(0o440)

    done = subprocess.run(
        ["visudo", "-c", "-O", "-P", "-f", file], capture_output=True, text=True, check=False
    )
    if "invalid option" in done.stderr:  # sudo before 1.9.14 knows neither option
        done = subprocess.run(
            ["visudo", "-c", "-f", file], capture_output=True, text=True, check=False
        )

    assert done.returncode == 0, done.stdout + done.stderr


def taken_over(home, found=None, *, uid=1200):
    """What becomes of the base's `pi` where passwd has this home; `found` is what Facts have there."""
    facts = phony.raspios()
    passwd = facts.text("/etc/passwd").replace(":/home/pi:", f":{home}:")
    files = {path: fact for path, fact in facts.files.items() if not path.startswith("/home/pi")}
    more = {"/etc/passwd": phony.text(passwd)} | ({home.rstrip("/"): found} if found else {})
    facts = phony.with_files(replace(facts, files=files), more)
    return image(facts, users=(phony.user("ada", uid, rename_from="pi"),)).delta.entries


@pytest.mark.parametrize(
    ("home", "found"),
    [
        ("/", None),
        ("/root", None),
        ("/usr/share", phony.folder()),
        ("/etc/", phony.folder()),
        ("home/pi", None),
        ("/home/../etc", None),
        ("/home/pi", phony.link("/data/pi")),
        ("/home/pi", phony.text("a file")),
        ("", None),
    ],
)
def test_a_home_that_is_no_plain_directory_is_not_moved(home, found):
    with pytest.raises(UnsupportedError, match="renamed from `pi`, whose home") as caught:
        taken_over(home, found)
    assert f"`{home}`" in str(caught.value)


def test_a_home_with_a_slash_at_its_end_moves_like_any_other():
    assert taken_over("/home/pi/", phony.folder())["/home/ada"].source == "/home/pi"


def test_a_home_that_was_never_made_is_made_and_files_elsewhere_get_the_new_numbers():
    entries = taken_over("/home/pi")

    assert entries["/home/ada"] == Directory(0o700, 1200, 1200)
    assert entries["/home/ada/.bashrc"].uid == 1200
    assert entries["/etc"] == Tree("/etc", ((1000, 1200),), ((1000, 1200),))
    assert "/etc" not in taken_over("/home/pi", uid=1000)


@pytest.mark.parametrize("home", ["/", "/etc", "/home", "/home/../usr", "lost"])
def test_no_system_directory_goes_with_the_wizards_account(home):
    facts = phony.raspios()
    passwd = facts.text("/etc/passwd").replace(":/home/rpi-first-boot-wizard:", f":{home}:")
    entries = image(phony.with_files(facts, {"/etc/passwd": phony.text(passwd)})).delta.entries

    assert "rpi-first-boot-wizard" not in entries["/etc/passwd"].content.decode()
    assert entries.get(home) != Absent()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("two\nlines", r"two.{1,4}lines` holds a NUL or a newline"),
        ("caf\udce9", r"/home/federico/caf.{1,8}` is not UTF-8"),
    ],
)
def test_a_name_that_no_delta_can_hold_is_told(name, words):
    facts = phony.with_files(phony.debian(), {f"/etc/skel/{name}": phony.text("x")})

    with pytest.raises(PiimageError, match=words) as caught:
        image(facts)
    assert str(caught.value).encode()


@pytest.mark.parametrize("path", ["/etc/passwd", "/etc/shadow", "/etc/group"])
@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, "it is not there"),
        (phony.link("../usr/etc/accounts"), "it is a link"),
        (phony.folder(), "it is a dir"),
        (phony.text(""), "it is empty or too large"),
    ],
)
def test_accounts_that_are_kept_elsewhere_are_not_overwritten(path, found, words):
    facts = phony.debian()
    files = {name: fact for name, fact in facts.files.items() if name != path}
    facts = replace(facts, files=files | ({path: found} if found else {}))

    with pytest.raises(UnsupportedError, match=f"accounts in {path}: {words}"):
        image(facts)


@pytest.mark.parametrize(
    "place", ["/var/mail", "/var/spool/cron/crontabs", "/var/lib/systemd/linger"]
)
def test_files_that_are_called_like_the_user_get_the_new_name(place):
    facts = phony.with_files(phony.raspios(), {f"{place}/pi": phony.text("")})
    entries = image(facts, users=(phony.user("ada", rename_from="pi"),)).delta.entries

    assert entries[f"{place}/ada"] == Tree(f"{place}/pi")


@pytest.mark.parametrize(
    ("name", "text", "ours"),
    [
        ("90-lab", "%users ALL=(ALL) ALL\n", "zz10_a"),
        ("90-lab", "# %users ALL=(ALL) ALL\n\nDefaults env_keep += X\nUser_Alias A = b\n", "010_a"),
        ("90-lab.bak", "%users ALL=(ALL) ALL\n", "010_a"),
        ("90-lab~", "%users ALL=(ALL) ALL\n", "010_a"),
        ("-first", "%users ALL=(ALL) ALL\n", "010_a"),
        ("lab", "#1000 ALL=(ALL) ALL\n", "zz10_a"),
    ],
)
def test_no_rule_of_the_base_comes_after_ours(name, text, ours):
    """Of the rules that match, sudo takes the last one: another would ask for a password again."""
    facts = phony.with_files(phony.debian(), {f"/etc/sudoers.d/{name}": phony.text(text, 0o440)})
    entries = image(facts, users=(phony.user("a", sudo=Sudo.NOPASSWD),)).delta.entries

    assert {p.rpartition("/")[2] for p in entries if p.startswith("/etc/sudoers.d/")} == {ours}


def test_a_file_that_goes_with_its_user_comes_after_nothing():
    part = image(phony.raspios(), users=(phony.user("a", rename_from="pi", sudo=Sudo.NOPASSWD),))

    assert "/etc/sudoers.d/010_a" in part.delta.entries


@pytest.mark.parametrize(
    ("line", "added"),
    [
        ("@includedir /etc/sudoers.d\n", False),
        ("#includedir /etc/sudoers.d/\n", False),
        ("# includedir /etc/sudoers.d\n", True),
        ("root ALL=(ALL) ALL", True),
    ],
)
def test_sudo_reads_our_files_whatever_the_base_says(line, added):
    facts = phony.with_files(phony.debian(), {"/etc/sudoers": phony.text(line, 0o440)})
    entries = image(facts, users=(phony.user("a", sudo=Sudo.NOPASSWD),)).delta.entries

    made = entries.get("/etc/sudoers")
    text = line.rstrip("\n") + "\n#includedir /etc/sudoers.d\n"
    assert made == (File(text.encode(), 0o440) if added else None)
