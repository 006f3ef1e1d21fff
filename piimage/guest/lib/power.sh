# shellcheck shell=sh
# Wants cluster.sh and ping.sh.
# bring_down poweroff|reboot WORD ARGUMENTS...: all nodes, the last one first and the head, which serves the
# folders that the others use, when they have gone.

# Seconds until nodes that were told to go must have gone.
WAIT=${PIIMAGE_WAIT:-120}

bring_down() {
    action=$1 word=$2 dry='' force=''
    shift 2
    for argument; do
        case $argument in
        -n | --dry-run) dry=yes ;;
        -f | --force) force=yes ;;
        -h | --help)
            printf 'usage: %s [-n|--dry-run] [-f|--force]\n' "$SCRIPT"
            printf '%s\n' "$word all nodes, from the last to the first, the head last." \
                "  -n  say what would be done" "  -f  go on when a node refuses"
            return 0
            ;;
        *) die "unknown argument: $argument (-n and -f are allowed)" 2 ;;
        esac
    done
    head=$(head_node)
    [ -n "$head" ] || die "$ROSTER names no head"
    [ "$head" = "$(this_node)" ] || die "run this on $head, which goes last"
    told='' refused=''
    for node in $(nodes | sed '1!G;h;$!d' | grep -vxF -- "$head"); do
        if [ -n "$dry" ]; then
            echo "$node: would $word"
            continue
        fi
        status=0
        said=$(on "$node" "sudo -n systemctl --no-block $action" 2>&1 </dev/null) || status=$?
        case $status in
        0) echo "$node: $action" && told="$told $node" ;;
        255) echo "$node: no answer, left as it is" ;; # ssh's own status
        *) echo "$node: refuses: $(printf '%s\n' "$said" | tail -n 1)" && refused="$refused $node" ;;
        esac
    done
    if [ -n "$dry" ]; then
        echo "$head: would $word"
        return 0
    fi
    [ -z "$refused" ] || [ -n "$force" ] || die "$head stays up for$refused; -f goes on all the same"
    wait_for "$told"
    echo "$head: $action"
    sudo -n systemctl --no-block "$action"
}

# wait_for NODES: until none of them answers, or the time is over.
wait_for() {
    left=$1 waited=0
    while [ -n "$left" ] && [ "$waited" -lt "$WAIT" ]; do
        still=''
        for node in $left; do
            ! echoes "$node" 1 >/dev/null || still="$still $node"
        done
        left=$still
        [ -z "$left" ] || sleep 1
        waited=$((waited + 1))
    done
    [ -z "$left" ] || echo "still there after $WAIT s:$left"
}
