# What is around the calls of rpm, after traces.sh; `piimage.bake.rpm_script` puts the calls in between.

# Signatures and digests were checked where the packages were fetched; here their keys need not be imported.
# rpm's plugins are for running systems: SELinux, IMA, a mount and network namespace for scriptlets, which ours have.
# No service starts: systemctl(1) does nothing but enable where no systemd runs.
run_rpm() {
	if ! rpm --nosignature --noplugins --percent "$@" >/run/piimage/rpm.log 2>&1; then
		grep -v '^%%' /run/piimage/rpm.log || :
		return 1
	fi
	grep -v '^%%' /run/piimage/rpm.log || :
	# A scriptlet after the installation that fails is only a warning to rpm: here nobody would read it.
	! grep -q 'scriptlet failed' /run/piimage/rpm.log
}

# What RPM finds wrong, files aside: dependencies, and what packages look at themselves.
look() { LC_ALL=C rpm --verify --all --nofiles 2>&1 || :; }

keep
look >/run/piimage/before

#STEPS

say auditing
rpmdb --verifydb
for package in $installed; do
	rpm --quiet --query "$package" || { say "$package is not installed"; exit 1; }
done
look >/run/piimage/after
worse=$(grep -v -x -F -f /run/piimage/before /run/piimage/after) || worse=
[ -z "$worse" ] || { echo "$worse"; say "rpm --verify finds packages that are not right"; exit 1; }
say leaving nothing behind
put_back
