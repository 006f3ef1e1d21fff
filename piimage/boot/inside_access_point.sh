#!/bin/sh
# Two emulated radios: wlan0 is the node's, the other goes into a network namespace with an access point and its
# DHCP server. Runs in the guest as root, from the kit disk's mount point, and starts the programs of the kit with
# the kit's own loader. Arguments: the kit, the first three numbers of the access point's network, or `absent`.
set -eu
kit=$1 net=$2
programs=$kit/usr/lib/aarch64-linux-gnu
loader="$programs/ld-linux-aarch64.so.1 --library-path $programs"
place=/run/piimage-radio

mkdir -p $place
if [ "$net" = absent ]; then
	exec modprobe mac80211_hwsim radios=1
fi
modprobe mac80211_hwsim radios=2
phy=$(cat /sys/class/net/wlan1/phy80211/name)
ip netns add air
$loader "$kit/usr/sbin/iw" phy "$phy" set netns name air
ip -n air link set lo up
ip -n air address add "$net.1/24" dev wlan1
ip -n air link set wlan1 up

printf '%s\n' 'interface wlan1' "start $net.100" "end $net.199" "option router $net.1" 'option subnet 255.255.255.0' \
	'option lease 3600' "lease_file $place/leases" "pidfile $place/udhcpd.pid" >$place/udhcpd.conf
: >$place/leases
# shellcheck disable=SC2086 # the loader is three words
ip netns exec air $loader "$kit/usr/sbin/hostapd" -B -f $place/hostapd.log "$CREDENTIALS_DIRECTORY/piimage.hostapd"
ip netns exec air "$kit/usr/bin/busybox" udhcpd $place/udhcpd.conf
