# Part of chroot.sh: which programs are native, and where.
tools=$root/run/piimage/tools
native=$root/run/piimage/native
for file in "$native"/usr/bin/* "$native"/usr/sbin/*; do
	program=${file##*/}
	case $program in
	# What answers for the architecture or enters the tree stays the guest's own.
	uname | arch | perl* | python* | py3* | dash | sh | bash | rbash | dpkg* | start-stop-daemon) continue ;;
	mount | umount | chroot | su | login | unshare | nsenter | lscpu | setarch | linux32 | linux64 | i386 | x86_64) continue ;;
	esac
	[ -L "$file" ] || case $(head -c 4 "$file" | tr -d '\177') in
	ELF) ln -s "../native/usr/${file#"$native"/usr/}" "$tools/$program" ;;
	esac
done
# dpkg's family, for the guest's architecture.
for file in "$native/$DPKG"/*; do
	[ ! -f "$file" ] || ln -s "../native/$DPKG/${file##*/}" "$tools/${file##*/}"
done
# What an initramfs gets comes from PATH, so there PATH is the guest's.
printf '#!/bin/sh\nPATH=/usr/sbin:/usr/bin:/sbin:/bin exec /usr/sbin/update-initramfs "$@"\n' >"$tools/update-initramfs"
chmod 755 "$tools/update-initramfs"
# Over the guest's own: for scripts that name an interpreter or set a PATH. Not where a package is about to put
# another file in that place, and only programs that merely work on files, since others get copied into an initramfs.
for package in bash coreutils cpio dash diffutils dpkg dracut-install findutils grep gzip mawk perl-base sed tar xz-utils zstd; do
	case " $REPLACED " in *" $package "*) continue ;; esac
	[ ! -f "$root/var/lib/dpkg/info/$package.list" ] || cat "$root/var/lib/dpkg/info/$package.list"
done | sed -n -E 's#^/(usr/)?(bin|sbin|lib/dracut)/([^/]*)$#\2/\3#p' | sort -u >"$WORK/places"
while read -r place; do
	guest=$root/usr/$place
	case ${place##*/} in
	dpkg*) own=$native/$DPKG/${place##*/} ;;
	uname | arch | chroot) continue ;;
	*) own=$native/usr/$place ;;
	esac
	if [ -f "$guest" ] && [ ! -L "$guest" ] && [ -f "$own" ] && [ ! -L "$own" ] &&
		[ "$(head -c 4 "$own" | tr -d '\177')" = ELF ]; then
		mount --bind "$own" "$guest"
	fi
done <"$WORK/places"
# Who copies a program means the guest's own, an initramfs above all: initramfs-tools copies with cp, and whatever ldd
# says the program needs. So both look below the mounts. One without the other would leave out libraries.
case " $REPLACED " in
*" coreutils "* | *" libc-bin "*) ;;
*)
	if inside /usr/bin/cp && inside /usr/bin/ldd && [ -f "$native/usr/bin/cp" ]; then
		mkdir "$root/run/piimage/guest"
		mount --bind "$root" "$root/run/piimage/guest"
		mount -o remount,bind,ro "$root/run/piimage/guest"
		cat >"$root/run/piimage/below" <<'END'
#!/bin/sh
# cp and ldd. The last of cp's words is where it copies to, unless an option has said so.
left=$#
case ${0##*/}/$* in
ldd/* | */-t* | *' -t'* | *--target-directory*) left=$((left + 1)) ;;
esac
for word do
	left=$((left - 1))
	case $word in
	/bin/* | /sbin/* | /usr/bin/* | /usr/sbin/*)
		own=/run/piimage/guest$word
		[ $left = 0 ] || [ ! -f "$own" ] || [ -L "$own" ] || word=$own
		;;
	esac
	shift
	set -- "$@" "$word"
done
case ${0##*/} in
ldd) exec /bin/bash /run/piimage/guest/usr/bin/ldd "$@" ;;
*) exec /run/piimage/native/usr/bin/cp "$@" ;;
esac
END
		chmod 755 "$root/run/piimage/below"
		for program in cp ldd; do
			mount --bind "$root/run/piimage/below" "$root/usr/bin/$program"
			ln -sf ../below "$tools/$program"
		done
	fi
	;;
esac
# Byte code is the same on every architecture: the guest's own py3compile and py3clean, run by a native python3 where
# there is one of the guest's version.
version=$(sed -n 's/^default-version *= *//p' "$root/usr/share/python3/debian_defaults" 2>/dev/null || :)
if [ -n "$version" ] && [ -x "$native/usr/bin/$version" ]; then
	mkdir "$root/run/piimage/python"
	for name in python3 "$version"; do ln -s "../native/usr/bin/$version" "$root/run/piimage/python/$name"; done
	for name in py3compile py3clean; do
		inside "/usr/bin/$name" || continue
		sed 's#"/usr/bin/python"#"/run/piimage/python/python"#' "$root/usr/bin/$name" >"$root/run/piimage/python/$name"
		printf '#!/bin/sh\nPATH=/run/piimage/python:$PATH exec /run/piimage/python/python3 /run/piimage/python/%s "$@"\n' "$name" >"$tools/$name"
		chmod 755 "$tools/$name"
	done
fi
