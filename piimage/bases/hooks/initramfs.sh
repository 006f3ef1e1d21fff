#!/bin/sh
# mmdebstrap customize hook: generate every initramfs of the tree "$1", once, with the swapped tools.
# Hooks of initramfs-tools copy whatever /usr/lib/*/libkmod.so* or a search of PATH finds, so the native libraries
# and the tools on PATH are hidden; the swapped tools are told by their environment where theirs are.
set -eu
root=$1
libraries=/.native/usr/lib/$NATIVE_TRIPLET
rm "$root/usr/lib/$NATIVE_TRIPLET"
env LD_LIBRARY_PATH="$libraries" PERL5LIB="$libraries/perl-base" PATH=/usr/sbin:/usr/bin:/sbin:/bin \
	chroot "$root" update-initramfs -c -k all
ln -s "$libraries" "$root/usr/lib/$NATIVE_TRIPLET"
