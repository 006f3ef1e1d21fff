"""Further examples for `--help` of commands that can do several things; each command's own words have the first."""

from __future__ import annotations

#: Command, then command lines (without `piimage`) and what each is for.
FURTHER: dict[str, tuple[tuple[str, str], ...]] = {
    "init": (
        ("init", "asks"),
        ("init lab.yaml --yes --ssh-key gh:ada", "asks nothing"),
        ("init --yes --wifi lab --country IT", "with Wi-Fi"),
    ),
    "plan": (
        ("plan --brief", "all roles, names of files only"),
        ("plan --against dist/pico5", "what a change makes stale"),
    ),
    "build": (
        ("build --all", "variants and stamps: what flash and boot take"),
        ("build --all --format img.zst", "an image of each, packed"),
        ("build --only-variants --node node1 --locked", "CI, without secrets"),
        ("build --all --from-variants ci", "at the desk with the state"),
    ),
    "verify": (
        ("verify /dev/sdX", "a card, before its first boot"),
        ("verify node3.img --node 3", "an image"),
        ("verify dist/pico5 --junit verify.xml --github", "in CI"),
    ),
    "flash": (
        ("flash --list", "which devices there are"),
        ("flash --all", "a stack of cards, one node after another"),
        ("flash --node 3=/dev/sdb --node 4=/dev/sdc", "two cards at once"),
        ("flash /dev/sdX --node 3 --update", "only what differs"),
        ("flash /dev/sdX --resume --node 3", "goes on after a break"),
        ("flash card.img --node 3", "a file, without root"),
        ("flash /dev/sdX --image lite.img.xz", "any image with an MBR"),
    ),
    "boot": (
        ("boot --node 3", "one node, asked from inside"),
        ("boot --all --keep", "leaves them up for `piimage ssh`"),
        ("boot --all --kill node0", "do the others switch off?"),
        ("boot --node 0 --access-point wrong-passphrase", "Wi-Fi that fails"),
        ("boot --node 1 --unplugged", "the cable goes in late"),
        ("boot --node 3 --machine raspi3b", "a Pi 3's own device tree"),
    ),
    "export": (
        ("export ansible --head 10.1.10.240", "an inventory, by the wire"),
        ("export all", "everything, in dist/CLUSTER/export"),
    ),
    "base pull": (
        ("base pull ubuntu-24.04-arm64 --from ~/ubuntu.img.xz", "a file here"),
        ("base pull ubuntu-24.04-arm64 --mirror /srv/images", "a mirror"),
        ("base pull debian-12-raspi4 --sha256 HEX", "what nobody signs"),
    ),
    "base trust": (
        ("base trust raspberrypi_downloads.gpg.key", "a file"),
        ("base trust k.asc --fingerprint HEX --publisher raspios", "a new one"),
    ),
}


def further(command: str) -> str:
    """The epilog of `command`: a line for each example, which typer neither joins nor wraps."""
    lines = (f"  piimage {line}  # {words}" for line, words in FURTHER[command])
    return "\n".join(("\b", "Further examples:", *lines))
