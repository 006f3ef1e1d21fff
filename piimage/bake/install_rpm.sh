# What is around the calls of rpm, after traces.sh; `piimage.bake.rpm_script` puts the calls in between.

# Signatures and digests were checked where the packages were fetched; here their keys need not be imported.
# No service starts: systemctl(1) does nothing but enable where no systemd runs.
run_rpm() {
	if ! rpm --nosignature --percent "$@" >/run/piimage/rpm.log 2>&1; then
		grep -v '^%%' /run/piimage/rpm.log || :
		return 1
	fi
	grep -v '^%%' /run/piimage/rpm.log || :
	# A scriptlet after the installation that fails is only a warning to rpm: here nobody would read it.
	! grep -q 'scriptlet failed' /run/piimage/rpm.log
}

keep

#STEPS

say auditing
rpmdb --verifydb
for package in $installed; do
	rpm --quiet --query "$package" || { say "$package is not installed"; exit 1; }
done
say leaving nothing behind
put_back
