# What is around the calls of dpkg, after traces.sh; `piimage.bake.dpkg_script` puts the calls in between.
# An initramfs is for the node that will boot it, so `dep`, which looks at this machine, is of no use.
for conf in /etc/initramfs-tools/initramfs.conf /etc/initramfs-tools/conf.d/*; do
	if [ -f "$conf" ] && grep -q '^ *MODULES=.*dep' "$conf"; then
		sed 's/^ *MODULES=.*/MODULES=most/' "$conf" >/run/piimage/initramfs.conf
		mount --bind /run/piimage/initramfs.conf "$conf" || { say "cannot have MODULES=most in $conf"; exit 1; }
	fi
done

run_dpkg() {
	dpkg --force-unsafe-io --force-confdef --force-confold --auto-deconfigure --log=/run/piimage/dpkg.log "$@"
}

keep
# No service starts: invoke-rc.d(8) and deb-systemd-invoke(1p) ask this program.
rm -f /usr/sbin/policy-rc.d
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d

#STEPS

say configuring
run_dpkg --configure --pending
say auditing
audit=$(dpkg --audit)
[ -z "$audit" ] || { echo "$audit"; say "dpkg --audit finds packages that are not right"; exit 1; }
say leaving nothing behind
put_back
