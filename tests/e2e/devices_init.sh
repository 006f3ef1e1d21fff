#!/bin/busybox sh
# `init` of a machine with card readers: runs /code/guest.py with the Python of a Debian, and switches off.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in /modules/*; do
	insmod "$module" || echo "does not load ${module##*/}" >/dev/console
done
tries=0
for device in '/dev/vport*p1' /dev/vda2 /dev/vdb /dev/sda /dev/sdb /dev/sdc /dev/mmcblk0; do
	until ls $device >/dev/null 2>&1; do
		tries=$((tries + 1))
		[ $tries -lt 1200 ] || { echo "has no $device" >/dev/console; poweroff -f; }
		usleep 50000
	done
done
mount -t ext4 -o ro,noload /dev/vda2 /root
mount -t tmpfs tmp /root/tmp
mount -t tmpfs run /root/run
mkdir -p /root/run/code
mount -t ext4 -o ro /dev/vdb /root/run/code
mount -o move /proc /root/proc
mount -o move /sys /root/sys
mount -o move /dev /root/dev
exec switch_root /root /bin/sh -c '
	PATH=/usr/sbin:/usr/bin:/sbin:/bin PYTHONPATH=/run/code python3 -B /run/code/guest.py \
		>"$(echo /dev/vport*p1)" 2>/dev/console
	sync
	echo o >/proc/sysrq-trigger
	sleep 60'
