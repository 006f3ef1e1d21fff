#!/bin/sh
# mmdebstrap extract hook: put native tools at /.native of the tree "$1". NATIVE_TOOLS names their directory.
set -eu
root=$1
cp -a "$NATIVE_TOOLS" "$root/.native"
# The tools' loader and libraries stand where an amd64 system has them; a foreign tree has nothing there.
mkdir -p "$root/usr/lib64"
ln -s usr/lib64 "$root/lib64"
ln -s "/.native/usr/lib/$NATIVE_TRIPLET" "$root/usr/lib/$NATIVE_TRIPLET"
ln -s "/.native/usr/lib/$NATIVE_TRIPLET/$NATIVE_LOADER" "$root/usr/lib64/$NATIVE_LOADER"
mkdir "$root/.native/tools"
for file in "$root"/.native/usr/bin/* "$root"/.native/usr/sbin/* "$root"/.native/usr/lib/dracut/*; do
	[ -f "$file" ] || continue # a release without dracut-install
	name=${file##*/}
	case $name in
	# What answers for the architecture, keeps dpkg's data base or enters the tree stays the guest's own.
	uname | arch | dpkg | dpkg-query | dpkg-divert | dpkg-trigger | dpkg-statoverride | dpkg-realpath) continue ;;
	update-alternatives | start-stop-daemon | perl* | python* | dash | sh | bash | rbash) continue ;;
	mount | umount | chroot | su | login | unshare | nsenter | lscpu | setarch | linux32 | linux64 | i386 | x86_64) continue ;;
	esac
	case $(head -c 4 "$file" | tr -d '\177') in
	ELF) ln -sf "/.native/usr/${file#"$root"/.native/usr/}" "$root/.native/tools/$name" ;;
	esac
done
# Byte code is the same on every architecture: remember what is to be compiled, do it natively at the end.
cat >"$root/.native/tools/py3compile" <<-'EOF'
	#!/bin/sh
	echo "$*" >>/.native/py3compile.log
EOF
chmod 755 "$root/.native/tools/py3compile"
: >"$root/.native/py3compile.log"
