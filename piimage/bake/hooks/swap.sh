#!/bin/sh
# mmdebstrap hook: native tools in the place of the guest's own, for scripts that set PATH or name an interpreter.
# Run when no package will be unpacked over these files any more: after the essential packages, and at the end.
set -eu
root=$1
for name in dash bash perl; do
	[ -e "$root/usr/bin/$name.guest" ] || ln -sf "/.native/usr/bin/$name" "$root/.native/tools/$name"
done
for tool in "$root"/.native/tools/*; do
	name=${tool##*/}
	for place in usr/bin usr/sbin usr/lib/dracut; do
		guest=$root/$place/$name
		if [ -f "$guest" ] && [ ! -L "$guest" ] && [ -L "$tool" ]; then
			mv "$guest" "$guest.guest"
			ln -s "$(readlink "$tool")" "$guest"
		fi
	done
done
