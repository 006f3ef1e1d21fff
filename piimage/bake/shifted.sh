# Runs chroot.sh, for an image from outside and as root, in a user namespace whose root is nobody on this machine.
# The environment is chroot.sh's, and besides:
#   STAGE   an empty directory that everybody may pass through to: there lies what the namespace may see of the host
#   CHROOT  chroot.sh
#   FIRST   the first of 65536 ids, in the guest's own order, that no account of this machine has
set -eu
mount -t tmpfs -o mode=755,nosuid,nodev piimage "$STAGE"
mkdir "$STAGE/work" "$STAGE/packages"
cp "$SCRIPT" "$STAGE/script"
cp "$CHROOT" "$STAGE/chroot.sh"
cp "$INSIDE" "$STAGE/inside.py"
cp "$WORK/native.sh" "$STAGE/work/native.sh"
chmod 644 "$STAGE"/*.sh "$STAGE"/*.py "$STAGE/script" "$STAGE/work/native.sh"
: >"$STAGE/image"
mount --bind "$IMAGE" "$STAGE/image"
chmod -R a+rX "$PACKAGES"
mount --bind "$PACKAGES" "$STAGE/packages"
mount -o remount,bind,ro "$STAGE/packages"
if [ -n "$NATIVE" ]; then
	mkdir "$STAGE/native"
	mount --bind "$NATIVE" "$STAGE/native"
	mount -o remount,bind,ro "$STAGE/native"
	NATIVE=$STAGE/native
fi
if [ -n "$FIRMWARE" ]; then
	mkdir "$STAGE/firmware"
	mount --bind "$FIRMWARE" "$STAGE/firmware"
	chown -R "$FIRST:$FIRST" "$FIRMWARE"
	FIRMWARE=$STAGE/firmware
fi
chown "$FIRST:$FIRST" "$IMAGE" "$STAGE/work"
mkfifo "$STAGE/made" "$STAGE/mapped"
chmod 666 "$STAGE/made" "$STAGE/mapped"

export IMAGE="$STAGE/image" PACKAGES="$STAGE/packages" SCRIPT="$STAGE/script" INSIDE="$STAGE/inside.py"
export WORK="$STAGE/work" NATIVE FIRMWARE STAGE
owned=$1
cd /
# The namespace is there before its ids are, and only from outside can it be given those.
unshare --user --mount --propagation private --keep-caps sh -euc '
	echo >"$STAGE/made"
	read -r line <"$STAGE/mapped"
	exec setpriv --reuid 0 --regid 0 --clear-groups --inh-caps=-all --ambient-caps=-all sh "$STAGE/chroot.sh"
' &
child=$!
read -r line <"$STAGE/made"
echo "0 $FIRST 65536" >"/proc/$child/uid_map"
echo "0 $FIRST 65536" >"/proc/$child/gid_map"
echo >"$STAGE/mapped"
status=0
wait $child || status=$?
chown "$(id -u):$(id -g)" "$owned"
exit $status
