# Runs a script inside an image, in namespaces of our own: whatever ends this ends every mount and process with it.
#   IMAGE, OFFSET, SIZE   the raw image and where its root file system lies, in bytes
#   MOUNT                 `kernel` (loop device) or `fuse` (fuse2fs)
#   WORK                  an empty directory of ours
#   FIRMWARE, PLACE       the directory with the firmware partition's files and where the guest has them, or nothing
#   PYTHON, INSIDE        a python3 of this machine's and inside.py
#   PACKAGES, SCRIPT      the directory of package files, the script to run
#   NATIVE, TRIPLET, LOADER, DPKG, REPLACED   native tools or nothing (see native_copy.py); packages about to be replaced
set -eu
root=$(realpath "$WORK")/root
mkdir -p "$root" "$WORK/run"
# Whether a path of the guest's is in the guest: a link would lead out of it, as long as its root is not ours.
inside() { [ "$(realpath -e "$root$1" 2>/dev/null)" = "$root$1" ]; }

# 1. The file system, in place.
case $MOUNT in
kernel) mount -t ext4 -o "loop,offset=$OFFSET,sizelimit=$SIZE,noatime,nodiratime,nobarrier,data=writeback,commit=300" "$IMAGE" "$root" ;;
fuse)
	fuse2fs -f -o "offset=$OFFSET,rw,fakeroot,allow_other,default_permissions" "$IMAGE" "$root" >"$WORK/fuse.log" 2>&1 &
	server=$!
	tries=0
	until mountpoint -q "$root"; do
		tries=$((tries + 1))
		if [ $tries -gt 200 ] || ! kill -0 $server 2>/dev/null; then
			cat "$WORK/fuse.log" >&2
			echo "fuse2fs does not mount the image" >&2
			exit 125
		fi
		sleep 0.05
	done
	;;
esac

# 2. What a running system has around its root, none of it in the image.
for directory in /dev /proc /run /tmp; do
	if ! inside "$directory" || [ ! -d "$root$directory" ]; then
		echo "the image has no directory $directory" >&2
		exit 125
	fi
done
mount -t tmpfs -o mode=755,nosuid,nodev run "$root/run"
mount -t tmpfs -o mode=1777,nosuid,nodev tmp "$root/tmp"
mount -t tmpfs -o mode=755,nosuid dev "$root/dev"
for node in null zero full random urandom tty; do
	: >"$root/dev/$node"
	mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777,nosuid,nodev shm "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for number in 0 1 2; do ln -s "/proc/self/fd/$number" "$root/dev/$(echo stdin stdout stderr | cut -d' ' -f$((number + 1)))"; done
mkdir -p "$root/run/lock" "$root/run/piimage/packages"
mount --bind "$PACKAGES" "$root/run/piimage/packages"
mount -o remount,bind,ro "$root/run/piimage/packages"
cp "$SCRIPT" "$root/run/piimage/script"
[ -z "$FIRMWARE" ] || ! inside "$PLACE" || mount --bind "$FIRMWARE" "$root$PLACE"

# 3. Native tools, on PATH and over the guest's own programs: mounts, so that the image knows nothing of them.
path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
if [ -n "$NATIVE" ]; then
	mkdir "$root/run/piimage/native" "$root/run/piimage/tools"
	mount --bind "$NATIVE" "$root/run/piimage/native"
	mount -o remount,bind,ro "$root/run/piimage/native"
	ln -s "native/usr/lib/$TRIPLET" "$root/run/piimage/lib"
	ln -s "lib/$LOADER" "$root/run/piimage/ld.so"
	. "$WORK/native.sh"
	path=/run/piimage/tools:$path
fi

# 4. The script, without network, with nothing of this machine's name or environment, and with no way out: a /proc of
# its own processes alone, where root can write nothing that is the machine's; the rest is inside.py's.
name=localhost
if inside /etc/hostname; then name=$(head -n 1 "$root/etc/hostname"); fi
status=0
unshare --mount --propagation private --net --uts --ipc --pid --fork --kill-child sh -euc '
	hostname "$1" 2>/dev/null || :
	shift
	mount -t proc -o nosuid,nodev,noexec proc "$1/proc"
	for place in acpi bus fs irq scsi sys sysrq-trigger; do
		[ ! -e "$1/proc/$place" ] || mount --bind "$1/proc/$place" "$1/proc/$place"
		[ ! -e "$1/proc/$place" ] || mount -o remount,bind,ro,nosuid,nodev,noexec "$1/proc/$place"
	done
	for place in kcore keys kmsg latency_stats sched_debug timer_list; do
		[ ! -e "$1/proc/$place" ] || mount --bind /dev/null "$1/proc/$place"
	done
	exec "$PYTHON" -I "$INSIDE" "$@"
' inside "$name" "$root" /usr/bin/env -i PATH="$path" \
	QEMU_CPU="$QEMU_CPU" $ENVIRONMENT /bin/sh /run/piimage/script </dev/null || status=$?

# 5. Out again: everything on the disk, and nothing mounted.
sync -f "$root"
umount -R "$root"
[ "$MOUNT" != fuse ] || wait $server
exit $status
