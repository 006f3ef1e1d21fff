#!/bin/bash
# Runs a command. What root makes through sudo in a user's own checkout is the user's afterwards, and so is its cache.
set -euo pipefail
cd "$(dirname "$0")"
user=${SUDO_UID:-0}
if [ "$(id -u)" -eq 0 ] && [ "$user" -ne 0 ] && [ "$(stat -c %u .)" -eq "$user" ]; then
	made=(.)
	if [ -z "${PIIMAGE_CACHE:-}" ]; then
		PIIMAGE_CACHE=$(getent passwd "$user" | cut -d: -f6)/.cache/piimage
		export PIIMAGE_CACHE
		sudo -u "#$user" mkdir -p "$PIIMAGE_CACHE" # ~/.cache is the user's too
		made+=("$PIIMAGE_CACHE")
	fi
	trap 'chown -Rh "$user:$SUDO_GID" "${made[@]}"' EXIT
fi
"$@"
