#!/bin/busybox sh
# `init` of our own machine: mounts the guest's file systems, runs the script inside, says how it ended, switches off.
# What the script prints goes to port 1, how it ended to port 2: `status N`, or `failed` and why.
#   /config   ROOT, its TYPE and OPTIONS, FIRMWARE or nothing, FIRMWARE_MOUNT, ENVIRONMENT, PERSONALITY: a command or nothing
/bin/busybox --install -s /bin
export PATH=/bin
. /config

finish() {
	sync
	echo "$*" >"$(echo /dev/vport*p2)"
	poweroff -f
}

fail() {
	echo "piimage: $*" >/dev/console
	finish "failed $*"
}

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in /modules/*; do
	insmod "$module" || fail "does not load ${module##*/}"
done
tries=0
for device in '/dev/vport*p1' '/dev/vport*p2' "/dev/$ROOT" /dev/vdb; do
	until ls $device >/dev/null 2>&1; do
		tries=$((tries + 1))
		[ $tries -lt 600 ] || fail "has no $device"
		usleep 50000
	done
done

mount -t "$TYPE" -o "$OPTIONS" "/dev/$ROOT" /root ||
	fail "cannot mount the root file system"
for directory in dev proc run tmp ${FIRMWARE:+"${FIRMWARE_MOUNT#/}"}; do
	[ -d "/root/$directory" ] && [ ! -L "/root/$directory" ] || fail "finds no directory /$directory in the image"
done
[ -z "$FIRMWARE" ] || mount -t vfat -o noatime,utf8,tz=UTC "/dev/$FIRMWARE" "/root$FIRMWARE_MOUNT" ||
	fail "cannot mount the firmware partition"

mount -t proc proc /root/proc
mount -t tmpfs -o mode=755,nosuid,nodev run /root/run
mount -t tmpfs -o mode=1777,nosuid,nodev tmp /root/tmp
mount -t tmpfs -o mode=755,nosuid dev /root/dev
# Documentation/admin-guide/devices.txt
for node in null=3 zero=5 full=7 random=8 urandom=9; do
	mknod -m 666 "/root/dev/${node%=*}" c 1 "${node#*=}"
done
mknod -m 666 /root/dev/tty c 5 0
mkdir /root/dev/pts /root/dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts /root/dev/pts
mount -t tmpfs -o mode=1777,nosuid,nodev shm /root/dev/shm
ln -s pts/ptmx /root/dev/ptmx
ln -s /proc/self/fd /root/dev/fd
ln -s /proc/self/fd/0 /root/dev/stdin
ln -s /proc/self/fd/1 /root/dev/stdout
ln -s /proc/self/fd/2 /root/dev/stderr
mkdir -p /packages /root/run/lock /root/run/piimage/packages
mount -t ext4 -o ro /dev/vdb /packages || fail "cannot mount the packages"
mount -o bind /packages/packages /root/run/piimage/packages
mount -o remount,bind,ro /root/run/piimage/packages
cp /script /root/run/piimage/script

name=localhost
[ ! -f /root/etc/hostname ] || [ -L /root/etc/hostname ] || name=$(head -n 1 /root/etc/hostname)
hostname "${name:-localhost}"
# A pipe, because a port can be opened only once, and scripts open /dev/stderr. In name spaces of its own, so that
# with the script all that it started and mounted ends.
{
	eval "unshare -m -u -i -n -p -f --mount-proc=/root/proc $PERSONALITY chroot /root /usr/bin/env -i $ENVIRONMENT \
		/bin/sh /run/piimage/script" </dev/null
	echo $? >/status
} 2>&1 | cat >"$(echo /dev/vport*p1)"

for place in $(cut -d ' ' -f 2 /proc/mounts | grep '^/root\(/\|$\)' | sort -r); do
	umount "$place" || fail "cannot unmount ${place#/root}"
done
umount /packages
finish "status $(cat /status)"
