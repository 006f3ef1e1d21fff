#!/bin/bash
# The sample cluster's node 3, from nothing to a card image. `make demo` runs it after `make setup`.
set -euo pipefail
cd "$(dirname "$0")"
PATH=$PWD/.venv/bin:$PATH

run() {
	printf '\n$ %s\n' "$*"
	"$@"
}

run piimage base make debian-13
run piimage validate cluster.yaml
run piimage build --node 3

cat <<'EOF'

What you have: dist/pico5/node3.img, a card image for a Raspberry Pi 3 or 4, with its .bmap and .sha256.
What next:
  .venv/bin/piimage boot --node 3                          see it come up in QEMU, and asserted from inside
  sudo .venv/bin/piimage flash /dev/sdX --node 3           write a card, and read all of it back
  ssh -i cluster.state/id federico@10.1.10.243             log in, once the board is on the wire
Then write your own cluster.yaml: copy the sample, change names, addresses and keys, `piimage validate`.
EOF
