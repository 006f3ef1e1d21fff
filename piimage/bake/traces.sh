# The first part of every installation: what keeps a guest as it was but for its packages. Runs in the guest.
set -eu
umask 022
kept=/run/piimage/kept
mkdir -p "$kept"
say() { echo "piimage: $*"; }

# As it was: a machine's identity is made at its first boot and not here, logs are of what happens on the machine.
files='/etc/machine-id /etc/resolv.conf /etc/hostname /etc/mailname /etc/.pwd.lock /usr/sbin/policy-rc.d
	/etc/ssh/ssh_host_ecdsa_key /etc/ssh/ssh_host_ecdsa_key.pub /etc/ssh/ssh_host_ed25519_key
	/etc/ssh/ssh_host_ed25519_key.pub /etc/ssh/ssh_host_rsa_key /etc/ssh/ssh_host_rsa_key.pub
	/var/lib/dbus/machine-id /var/lib/systemd/random-seed
	/var/log/alternatives.log /var/log/dpkg.log /var/log/fontconfig.log'
directories='/etc /etc/ssh /usr/sbin /var/lib/dbus /var/lib/systemd /var/log /var/tmp'
there() { [ -e "$1" ] || [ -L "$1" ]; }
name() { echo "$kept/$(echo "$1" | tr / %)"; }

keep() {
	for directory in $directories; do
		[ -d "$directory" ] || continue
		ls -A "$directory" >"$(name "$directory").names"
		: >"$(name "$directory").times"
		touch -r "$directory" "$(name "$directory").times"
	done
	for file in $files; do
		if there "$file"; then cp -a "$file" "$(name "$file")"; fi
	done
}

put_back() {
	for file in $files; do
		copy=$(name "$file")
		if there "$copy"; then
			if [ -L "$copy" ] && [ "$(readlink "$copy")" = "$(readlink "$file")" ]; then continue; fi
			if [ ! -L "$file" ] && cmp -s "$copy" "$file"; then touch -r "$copy" "$file"; continue; fi
			rm -rf "$file"
			cp -a "$copy" "$file"
		elif there "$file"; then
			rm -rf "$file"
		fi
	done
	for directory in $directories; do
		names=$(name "$directory").names
		[ -f "$names" ] || continue
		if ls -A "$directory" | cmp -s - "$names"; then touch -r "${names%names}times" "$directory"; fi
	done
}
