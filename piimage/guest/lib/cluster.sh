# shellcheck shell=sh
# Read by the scripts of ~/bin: who the nodes are, and how to ask all of them at once.

NODES=${PIIMAGE_NODES:-/etc/piimage/nodes}
ROSTER=${PIIMAGE_ROSTER:-/etc/piimage/cluster.json}
SCRIPT=${0##*/}

die() {
    printf '%s: %s\n' "$SCRIPT" "$1" >&2
    exit "${2:-1}"
}

# One name a line; the file may hold empty lines before the first boot has trimmed it.
nodes() {
    sed '/^$/d' "$NODES"
}

head_node() {
    sed -n 's/^ *"head": "\([^"]*\)",*$/\1/p' "$ROSTER"
}

this_node() {
    hostname | cut -d. -f1
}

# on NODE LINE: a line of shell on a node, here if that is this one. Its input goes there.
on() {
    if [ "$1" = "$(this_node)" ]; then
        sh -c "$2"
    else
        ssh -T -o BatchMode=yes -o ConnectTimeout=10 -- "$1" "$2"
    fi
}

# everywhere LINE [FILE]: on all nodes at once, each with FILE as its input. Leaves NODE.out, NODE.err
# and NODE.status in the directory $WORK, which goes when the script ends.
everywhere() {
    WORK=$(mktemp -d) || die "no place for temporary files"
    trap 'rm -rf "$WORK"' EXIT
    for node in $(nodes); do
        (
            on "$node" "$1" <"${2:-/dev/null}" >"$WORK/$node.out" 2>"$WORK/$node.err"
            echo $? >"$WORK/$node.status"
        ) &
    done
    wait
}

# why NODE: the last line of what it had to complain about.
why() {
    said=$(sed '/^[[:space:]]*$/d' "$WORK/$1.err" | tail -n 1)
    printf '%s\n' "${said:-exit status $(cat "$WORK/$1.status")}"
}
