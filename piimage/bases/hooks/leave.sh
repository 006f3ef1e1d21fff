#!/bin/sh
# mmdebstrap customize hook: compile the byte code that was asked for, then take every trace of the tools away.
set -eu
root=$1
python=$(cd "$root" && ls -d .native/usr/bin/python3.[0-9]* | sort | tail -n 1)
sed -n 's/.*-p \([^ :]*\).*/\1/p' "$root/.native/py3compile.log" | sort -u | while read -r package; do
	for list in "$root/var/lib/dpkg/info/$package.list" "$root"/var/lib/dpkg/info/"$package":*.list; do
		[ ! -f "$list" ] || grep -E '^/usr/(lib/python3/dist-packages|share|lib)/.*\.py$' "$list" || :
	done
done | chroot "$root" "/$python" -E -S -c '
import os, py_compile, sys
for line in sys.stdin:
    path = line.rstrip("\n")
    if os.path.isfile(path) and not path.startswith("/usr/lib/python3."):
        py_compile.compile(path)
'
find "$root/usr/bin" "$root/usr/sbin" "$root/usr/lib/dracut" -name '*.guest' | while read -r guest; do
	mv "$guest" "${guest%.guest}"
done
rm -r "$root/.native" "$root/usr/lib64" "$root/lib64" "$root/usr/lib/$NATIVE_TRIPLET"
