# Runs chroot.sh, for an image from outside and as root, in a user namespace whose root is nobody on this machine.
# The environment is chroot.sh's, and besides:
#   CHROOT  chroot.sh
#   FIRST   the first of 65536 ids, in the guest's own order, that no account of this machine has
set -eu
# All that the namespace may see of the image and its packages, in a place that everybody may pass through to: a cache
# is its owner's alone.
stage=$WORK/stage
mkdir "$stage"
mount -t tmpfs -o mode=755,nosuid,nodev piimage "$stage"
mkdir "$stage/scratch" "$stage/packages"
cp "$SCRIPT" "$stage/script"
cp "$CHROOT" "$stage/chroot.sh"
cp "$INSIDE" "$stage/inside.py"
cp "$WORK"/native.sh "$stage/scratch/native.sh"
chmod 644 "$stage"/*.sh "$stage"/*.py "$stage/script" "$stage/scratch/native.sh"
: >"$stage/image"
mount --bind "$IMAGE" "$stage/image"
chmod -R a+rX "$PACKAGES"
mount --bind "$PACKAGES" "$stage/packages"
mount -o remount,bind,ro "$stage/packages"
if [ -n "$NATIVE" ]; then
	mkdir "$stage/native"
	mount --bind "$NATIVE" "$stage/native"
	mount -o remount,bind,ro "$stage/native"
fi
if [ -n "$FIRMWARE" ]; then
	mkdir "$stage/firmware"
	mount --bind "$FIRMWARE" "$stage/firmware"
	chown -R "$FIRST:$FIRST" "$stage/firmware"
fi
chown "$FIRST:$FIRST" "$stage/image" "$stage/scratch"
mkfifo "$stage/made" "$stage/mapped"
chmod 666 "$stage/made" "$stage/mapped"
# Ours is the only mount namespace that sees this, so no directory of our own is needed, nor left by whoever is killed.
mount --move "$stage" /mnt
cd /

export IMAGE=/mnt/image PACKAGES=/mnt/packages SCRIPT=/mnt/script INSIDE=/mnt/inside.py WORK=/mnt/scratch
export NATIVE="${NATIVE:+/mnt/native}" FIRMWARE="${FIRMWARE:+/mnt/firmware}"
# The namespace is there before its ids are, and only from outside can it be given those.
unshare --user --mount --propagation private --keep-caps sh -euc '
	echo >/mnt/made
	read -r line </mnt/mapped
	exec setpriv --reuid 0 --regid 0 --clear-groups --inh-caps=-all --ambient-caps=-all sh /mnt/chroot.sh
' &
child=$!
read -r line </mnt/made
echo "0 $FIRST 65536" >"/proc/$child/uid_map"
echo "0 $FIRST 65536" >"/proc/$child/gid_map"
echo >/mnt/mapped
status=0
wait $child || status=$?
chown 0:0 /mnt/image
exit $status
