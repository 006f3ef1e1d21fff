# shellcheck shell=sh
# echoes NAME SECONDS: milliseconds until it answered, as `0.412`; else, with status 1, why not. Where there is no
# ping, or it may not be used, a connection to the ssh server is tried: `0.9 ssh` (a refusal is an answer, too).
echoes() {
    if command -v ping >/dev/null; then
        said=$(LC_ALL=C ping -q -c 1 -W "$2" "$1" 2>&1)
        took=$(printf '%s\n' "$said" | sed -n 's|.*= [0-9.]*/\([0-9.]*\)/.*|\1|p')
        if [ -n "$took" ]; then
            echo "$took"
            return 0
        fi
        case $said in
        *ermitted* | *ermission* | *capabilit* | *SOCK_*) ;;
        *transmitted*)
            echo "no answer within $2 s"
            return 1
            ;;
        *)
            said=$(printf '%s\n' "$said" | sed '/^$/d' | tail -n 1)
            echo "${said:-no answer}"
            return 1
            ;;
        esac
    fi
    python3 -IS -c '
import socket, sys, time
began = time.monotonic()
try:
    socket.create_connection((sys.argv[1], 22), float(sys.argv[2])).close()
except ConnectionRefusedError:
    pass
except OSError as error:
    sys.exit(print(f"no ping here, and its ssh server: {error.strerror or error}") or 1)
print(f"{(time.monotonic() - began) * 1000:.1f} ssh")' "$1" "$2" 2>/dev/null
}
