#!/bin/sh
# mmdebstrap hook: native tools in the place of the guest's own, for scripts that set PATH or name an interpreter.
# Run when no package will be unpacked over these files any more: after the essential packages, and at the end.
# Only packages whose programs merely work on files: blkid, modprobe and the like get copied into the initramfs.
set -eu
root=$1
# Before Debian 13 mmdebstrap merges /usr after the extract hooks, and takes away what the guest has no use for.
[ -L "$root/lib64" ] || ln -s usr/lib64 "$root/lib64"
for name in dash bash perl; do
	ln -sf "/.native/usr/bin/$name" "$root/.native/tools/$name"
done
for package in bash coreutils cpio dash diffutils dracut-install findutils grep gzip mawk perl-base sed tar xz-utils zstd; do
	[ ! -f "$root/var/lib/dpkg/info/$package.list" ] || cat "$root/var/lib/dpkg/info/$package.list"
done | sed -n -E 's#^/(usr/)?(bin|sbin|lib/dracut)/([^/]*)$#usr/\2/\3#p' | sort -u | while read -r place; do
	tool=$root/.native/tools/${place##*/}
	guest=$root/$place
	if [ -L "$tool" ] && [ -f "$guest" ] && [ ! -L "$guest" ]; then
		mv "$guest" "$guest.guest"
		ln -s "$(readlink "$tool")" "$guest"
	fi
done
[ -L "$root/usr/bin/dash" ] # else nothing was swapped, and all would be emulated
