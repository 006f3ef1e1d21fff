# What is around the calls of dpkg, after traces.sh; `piimage.bake.dpkg_script` puts the calls in between.
# An initramfs is for the node that will boot it, so `dep`, which looks at this machine, is of no use. What is read
# last counts (initramfs.conf(5)).
most=/etc/initramfs-tools/conf.d/zzzz-piimage
initramfs_for_any() {
	for conf in /etc/initramfs-tools/initramfs.conf /etc/initramfs-tools/conf.d/*; do
		if [ -f "$conf" ] && grep -q '^ *MODULES=.*dep' "$conf"; then
			touch -r "${most%/*}" /run/piimage/initramfs.times
			echo MODULES=most >"$most"
			return
		fi
	done
}
initramfs_as_it_was() {
	if [ -f "$most" ]; then
		rm "$most"
		touch -r /run/piimage/initramfs.times "${most%/*}"
	fi
}

run_dpkg() {
	PATH=$stable:$PATH dpkg --force-unsafe-io --force-confdef --force-confold --auto-deconfigure --log=/run/piimage/dpkg.log "$@"
}

keep
told_the_time "$when"
initramfs_for_any
# No service starts: invoke-rc.d(8) and deb-systemd-invoke(1p) ask this program.
rm -f /usr/sbin/policy-rc.d
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d

#STEPS

say configuring
run_dpkg --configure --pending
#CONFIGURED
say auditing
audit=$(dpkg --audit)
[ -z "$audit" ] || { echo "$audit"; say "dpkg --audit finds packages that are not right"; exit 1; }
say leaving nothing behind
initramfs_as_it_was
put_back
times_told "$when"
