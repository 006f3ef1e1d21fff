"""Rehearsal: artifacts started in QEMU, and asked whether they kept their promises."""
