#!/bin/bash
# Installs what is missing: Debian packages, then a virtual environment in .venv that sees python3-guestfs.
# `make setup` runs it; so do `make demo` and `make test`. Run again it changes nothing.
#   setup.sh            what piimage needs
#   setup.sh tests      that, and what its tests need
set -euo pipefail
cd "$(dirname "$0")"

say() { printf '== %s\n' "$*"; }

quietly() { # WHO HINT COMMAND...: what it says is shown only if it fails
	local who=$1 hint=$2 log
	log=$(mktemp)
	shift 2
	if ! "$@" >"$log" 2>&1; then
		grep -E '^(E|ERROR): ' "$log" | tail -n 5 >&2 || tail -n 15 "$log" >&2
		printf 'error: %s could not install them; the whole log is in %s\nhint: %s\n' "$who" "$log" "$hint" >&2
		exit 3
	fi
	rm -f "$log"
}

packages=(python3 python3-venv python3-guestfs mmdebstrap arch-test qemu-user-static qemu-system-arm qemu-utils
	ipxe-qemu mtools dosfstools e2fsprogs fdisk fuse2fs kmod uidmap openssh-client xz-utils zstd ca-certificates gpg gpgv)
# What the tests hold our output against: the tools that will read it.
test_packages=(bmap-tools sudo systemd netplan.io selinux-utils guestfs-tools tmux openmpi-bin libopenmpi-dev gcc libc6-dev
	python3-libgpiod python3-gi gir1.2-nm-1.0 shellcheck rpm python3-dnf createrepo-c
	ansible-core clustershell pssh librsvg2-bin mandoc nbdkit nbdkit-plugin-python libnbd-bin fuse3
	xfsprogs libguestfs-xfs lvm2)
[ "${1:-}" != tests ] || packages+=("${test_packages[@]}")
# The appliance boots a kernel of this machine; containers and some virtual machines have none.
compgen -G '/boot/vmlinuz-*' >/dev/null || packages+=("linux-image-cloud-$(dpkg --print-architecture)")

missing=()
for package in "${packages[@]}"; do
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
	say "installing ${#missing[@]} Debian packages: ${missing[*]}"
	as_root=()
	if [ "$(id -u)" -ne 0 ]; then
		command -v sudo >/dev/null || {
			echo "error: these packages are missing and only root can install them: ${missing[*]}" >&2
			exit 3
		}
		as_root=(sudo)
	fi
	install() {
		"${as_root[@]}" apt-get update -q &&
			"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
				apt-get install -q -y --no-install-recommends "${missing[@]}"
	}
	quietly apt-get "another apt running, or no network? try again when \`apt-get update\` works" install
fi

# The distribution's python3 by its full name: another one first on PATH cannot see python3-guestfs.
wanted=$(cat pyproject.toml setup.sh | sha256sum)
if [ "$(cat .venv/installed 2>/dev/null)" != "$wanted" ]; then
	say "making the virtual environment .venv, with the Python packages that pyproject.toml names"
	/usr/bin/python3 -m venv --clear --system-site-packages .venv
	pip() { .venv/bin/python -m pip install --quiet --disable-pip-version-check --retries 2 "$@"; }
	install() { pip --upgrade 'pip>=25.1' && pip --editable . --group dev; }
	quietly pip "no network, or a proxy that pip does not know? \`pip config\` has its index and proxy" install
	echo "$wanted" >.venv/installed
elif [ ${#missing[@]} -eq 0 ]; then
	say "set up already: the Debian packages and .venv are here"
fi
