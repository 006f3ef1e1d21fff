# The first part of every installation: what keeps a guest as it was but for its packages. Runs in the guest.
set -eu
umask 022
kept=/run/piimage/kept
mkdir -p "$kept"
say() { echo "piimage: $*"; }

# As it was: a machine's identity is made at its first boot and not here, logs are of what happens on the machine, and
# ldconfig's notes are of inode numbers and times (it makes them anew when it next runs).
files='/etc/machine-id /etc/resolv.conf /etc/hostname /etc/mailname /etc/.pwd.lock /usr/sbin/policy-rc.d
	/etc/ssh/ssh_host_ecdsa_key /etc/ssh/ssh_host_ecdsa_key.pub /etc/ssh/ssh_host_ed25519_key
	/etc/ssh/ssh_host_ed25519_key.pub /etc/ssh/ssh_host_rsa_key /etc/ssh/ssh_host_rsa_key.pub
	/var/lib/dbus/machine-id /var/lib/systemd/random-seed /var/cache/ldconfig/aux-cache
	/var/log/alternatives.log /var/log/dpkg.log /var/log/fontconfig.log'
directories='/etc /etc/ssh /usr/sbin /var/cache/ldconfig /var/lib/dbus /var/lib/systemd /var/log /var/tmp'
there() { [ -e "$1" ] || [ -L "$1" ]; }
name() { echo "$kept/$(echo "$1" | tr / %)"; }

# Programs that note the day or the time, and can be told which: initramfs-tools(7), useradd(8), systemd-sysusers(8). Not
# told to all: byte code of Python would then be held against its source at every start (py_compile).
stable=/run/piimage/stable
told_the_time() {
	mkdir -p "$stable"
	for program in adduser addgroup update-initramfs useradd usermod systemd-sysusers; do
		# Scripts ask whether there is one.
		command -v "$program" >/dev/null || continue
		cat >"$stable/$program" <<-END
			#!/bin/sh
			PATH=\${PATH#$stable:}
			SOURCE_DATE_EPOCH=$1
			export PATH SOURCE_DATE_EPOCH
			exec $program "\$@"
		END
		chmod 755 "$stable/$program"
	done
}

# What was written here is of the time that was given, not of the moment: two bakes differ in nothing. What packages
# bring has times of its own, before this.
times_told() {
	# A program that is mounted over one of the guest's is none of its files, and may have been made a moment ago.
	find / -xdev \( -path /dev -o -path /proc -o -path /run -o -path /sys -o -path /tmp \) -prune -o \
		-newer "$kept/began" -printf '%D %p\0' | sed -z -n "s/^$(stat -c %d /) //p" | xargs -0r touch -h -d "@$1"
}

keep() {
	# A file system with small inodes keeps whole seconds: what is written in this one is of its beginning there.
	touch -d "@$(($(date +%s) - 1))" "$kept/began"
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
