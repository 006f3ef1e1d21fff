"""Native tools for a foreign-architecture tree.

Under qemu-user nearly all of an installation's time goes into starting tiny programs: shells, perl, coreutils.
None of them cares for the architecture of the tree it works on. So the same release's tools of the host's own
architecture are put into the tree for as long as packages are installed (`hooks/`), found first on PATH and,
where a script names an interpreter, in the guest's own place. The kernel starts them natively even when an
emulated program calls them. dpkg itself and whatever answers for the architecture stay the guest's.
"""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from piimage.bases.archive import mmdebstrap
from piimage.run import run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from piimage.bases.cache import Cache
    from piimage.progress import Progress

#: Host machine -> Debian architecture, multiarch triplet, name of the loader.
_HOSTS = {
    "x86_64": ("amd64", "x86_64-linux-gnu", "ld-linux-x86-64.so.2"),
}

_PACKAGES = (
    "bash", "bzip2", "coreutils", "cpio", "dash", "debianutils", "diffutils", "dpkg", "findutils", "grep", "gzip",
    "kmod", "mawk", "openssl", "perl-base", "python3-minimal", "sed", "tar", "util-linux", "xz-utils", "zstd",
)  # fmt: skip
#: What not every release has: dracut-install is a package of its own from Debian 13 on.
_WHERE_PRESENT = ("dracut-install",)
#: Before Debian 13 packages still have files in /bin and /lib; of these trees only /usr is used.
_MERGED = (
    'cd "$1" && mkdir -p usr/bin usr/sbin usr/lib usr/lib64 && '
    "for name in bin sbin lib lib64; do ln -s usr/$name $name; done"
)

#: PATH inside the tree while packages are installed.
TREE_PATH = "/.native/tools:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class NativeTools:
    """A directory of native tools and what the hooks must know of it."""

    directory: Path
    triplet: str
    loader: str

    def environment(self) -> dict[str, str]:
        """What the hook scripts read."""
        return {
            "NATIVE_TOOLS": str(self.directory),
            "NATIVE_TRIPLET": self.triplet,
            "NATIVE_LOADER": self.loader,
        }


def hook(name: str) -> Path:
    """The path of one of the hook scripts: `enter`, `swap`, `initramfs` or `leave`."""
    return Path(str(files("piimage.bases") / "hooks" / f"{name}.sh"))


def native_tools(
    suite: str,
    sources: Sequence[str],
    *,
    namespace: Sequence[str],
    cache: Cache,
    progress: Progress,
) -> NativeTools | None:
    """Native tools of `suite`, from the cache or made with mmdebstrap; None where this host needs or has none.

    `namespace` is the command prefix under which trees are made (see `piimage.bases.namespace`).
    """
    known = _HOSTS.get(platform.machine())
    if known is None:
        return None
    architecture, triplet, loader = known
    packages = sorted((*_PACKAGES, *_WHERE_PRESENT))
    text = "\n".join([suite, architecture, *packages, *sources, *map(str, namespace)])
    name = f"{suite}-{architecture}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    target = cache.directory("native") / name
    if not target.is_dir():
        with (
            progress.step(f"fetching native {architecture} tools of {suite}") as task,
            cache.scratch() as scratch,
        ):
            mmdebstrap(
                [
                    *namespace, "mmdebstrap", "--mode=root", "--variant=extract", f"--architectures={architecture}",
                    '--aptopt=APT::Install-Recommends "false"', "--dpkgopt=path-exclude=/usr/share/*",
                    f"--setup-hook={_MERGED}", f"--include={','.join(_PACKAGES)}",
                    # a pattern (apt-patterns(7)) may match nothing
                    *(f"--include=?exact-name({name})" for name in _WHERE_PRESENT),
                    suite, str(scratch / "tools"), *sources,
                ],
                env={}, log=scratch / "log", task=task,
            )  # fmt: skip
            run([*namespace, "chmod", "755", scratch / "tools"])
            (scratch / "tools").rename(target)
    cache.used(target)
    return NativeTools(target, triplet, loader)
