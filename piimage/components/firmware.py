"""The one owner of the kernel's command line and of config.txt, which the board's firmware reads.

Where the firmware starts U-Boot and that starts GRUB (Fedora), the command line is in the entries of the boot loader.
Debian's package raspi-firmware writes both anew whenever a kernel or it itself is installed
(/etc/kernel/postinst.d/z50-raspi-firmware). What we add therefore also goes where that hook takes
it from (`distros/firmware_hook.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from piimage.components.textfile import encode, rewritten, with_newline
from piimage.delta import File, Slot
from piimage.distros import boot_loader
from piimage.distros.firmware_config import (
    CONFIG,
    cmdline_path,
    config,
    firmware_command_line,
    of_some_boards,
)
from piimage.distros.firmware_hook import HOOK_CMDLINE, HOOK_CONFIG, regenerates
from piimage.errors import ImageError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from piimage.components.contribution import Contribution
    from piimage.delta import Entry
    from piimage.facts import Facts

_HEADING = "# added by piimage"


def tokens(parts: Iterable[Contribution]) -> tuple[str, ...]:
    """All kernel tokens that are asked for, in order, each once."""
    return tuple(dict.fromkeys(token for part in parts for token in part.cmdline))


def dropped(parts: Iterable[Contribution]) -> tuple[str, ...]:
    """All tokens (or keys) that are to go."""
    return tuple(dict.fromkeys(token for part in parts for token in part.cmdline_drop))


def merge_tokens(text: str, add: Sequence[str], drop: Sequence[str] = ()) -> str:
    """One line of kernel tokens, newline at the end.

    A token `key=value` replaces others of that key; consoles add up, since the kernel uses all of
    them and the last as /dev/console. `drop` names tokens or whole keys.
    """
    replaced = {_key(token) for token in add if "=" in token and _key(token) != "console"}
    kept = [
        token
        for token in text.split()
        if token not in drop
        and _key(token) not in drop
        and token not in add
        and not ("=" in token and _key(token) in replaced)
    ]
    return " ".join([*kept, *add]) + "\n"


def _key(token: str) -> str:
    return token.partition("=")[0]


def refuse(facts: Facts) -> None:
    """Raise `UnsupportedError` where some boards read another command line than others: nodes must boot from any."""
    found = [] if boot_loader.in_force(facts) else of_some_boards(config(facts))
    if found:
        section, setting = found[0]
        raise UnsupportedError(
            f"{CONFIG} of the base has `{setting}` under `[{section}]`: some boards would read another command line"
            " than others",
            hint=f"put the setting under `[all]` in the image's {CONFIG}, or take it out",
        )


def entries(parts: Sequence[Contribution], facts: Facts) -> dict[str, Entry]:
    """cmdline.txt and config.txt, where they change, and what the hook makes them from; raises like `refuse`."""
    refuse(facts)
    add, drop = tokens(parts), dropped(parts)
    found = _command_lines(add, drop, facts) if add or drop or _untidy(facts) else {}
    if regenerates(facts):
        # a slot: tokens of a single node must survive a kernel update too
        found[HOOK_CMDLINE] = Slot(4096, mode=0o644)
    lines = list(dict.fromkeys(line for part in parts for line in part.config_txt))
    if lines:
        found |= _config(lines, facts)
    return found


def _command_lines(add: Sequence[str], drop: Sequence[str], facts: Facts) -> dict[str, Entry]:
    """The command line of every kernel that the base has, and of those to come; raises `ImageError` without any."""

    def change(text: str) -> str:
        return merge_tokens(text, add, drop)

    entries_ = boot_loader.in_force(facts)
    if entries_:
        texts = {path: boot_loader.with_options(facts.text(path), change) for path in entries_}
        if facts.text(boot_loader.KERNEL_CMDLINE).split():
            texts[boot_loader.KERNEL_CMDLINE] = change(facts.text(boot_loader.KERNEL_CMDLINE))
        grub = facts.text(boot_loader.GRUB_DEFAULTS)
        if grub:
            texts[boot_loader.GRUB_DEFAULTS] = boot_loader.with_grub_defaults(grub, change)
        return {path: rewritten(facts, path, text) for path, text in texts.items()}
    path, line = cmdline_path(facts), firmware_command_line(facts)
    if not line:
        raise ImageError(f"the base has no kernel command line at {path}")
    return {path: rewritten(facts, path, change(line), mode=0o755)}


def _untidy(facts: Facts) -> bool:
    """Whether cmdline.txt has what is no token of the line in force: further lines, the line ends of Windows."""
    text = facts.text(cmdline_path(facts))
    return "\r" in text or text.strip() != firmware_command_line(facts)


def _config(lines: Sequence[str], facts: Facts) -> dict[str, Entry]:
    path = f"{facts.firmware}/{CONFIG}"
    found: dict[str, Entry] = {
        path: rewritten(facts, path, config_text(facts.text(path), lines), mode=0o755)
    }
    if regenerates(facts):
        custom = facts.text(HOOK_CONFIG)
        found[HOOK_CONFIG] = File(encode(config_text(custom, lines)))
    return found


def config_text(text: str, lines: Sequence[str]) -> str:
    """config.txt with `lines` at its end, under `[all]` so that no board's filter applies."""
    present = text.partition(_HEADING)[0]
    return with_newline(present) + "\n".join([_HEADING, "[all]", *lines]) + "\n"


def stamped_cmdline(
    facts: Facts, variant: Sequence[str], own: Sequence[str], drop: Sequence[str] = ()
) -> dict[str, bytes]:
    """The hook's slot: what the base has in it but for `drop`, the variant's tokens and the node's own."""
    if not regenerates(facts):
        return {}
    text = merge_tokens(facts.text(HOOK_CMDLINE), [*variant, *own], drop)
    return {HOOK_CMDLINE: encode(text)}
