"""Ask the host's dnf, in a process of its own: `python3 dnf_query.py`, a JSON request on standard input.

The request: `root` (see `dnf_root`; it is HOME too), `architecture` (RPM's name), `release`, `below` and `wanted`
(what is installed first, and then: names or name-[epoch:]version-release.architecture), and for a download `packages`
and `directory`. Answers are lines of JSON: `{"bytes": n}` while something comes in, and at last
`{"packages": [...], "removed": [...]}`, `{"files": [...], "keys": [...]}` or `{"error": kind, "text": ...}` where kind
is `missing` (no dnf), `archive`, `unknown` (with `name`) or `unresolved`.

dnf's own command line shows tables for people only; this is its public API (dnf 4).
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def answer(**words: object) -> None:
    """One line of the answer."""
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


def opened(dnf: Any, request: dict[str, Any]) -> Any:  # noqa: ANN401 -- dnf has no types
    """A `dnf.Base` of the request's root, with repositories and installed packages read."""
    root = request["root"]
    base = dnf.Base()
    conf = base.conf
    conf.installroot = root
    places = [f"{root}/{name}" for name in ("cache", "persist", "log")]
    for place in places:
        os.makedirs(place, exist_ok=True)  # noqa: PTH103 -- no more is needed of a path
    conf.cachedir, conf.persistdir, conf.logdir = places
    conf.reposdir = [f"{root}/etc/yum.repos.d"]
    conf.plugins = False
    conf.best = True
    conf.install_weak_deps = False
    conf.retries, conf.timeout = 2, 30
    conf.arch, conf.ignorearch = request["architecture"], True
    conf.substitutions["arch"] = request["architecture"]
    conf.substitutions["basearch"] = dnf.rpm.basearch(request["architecture"])
    conf.substitutions["releasever"] = request["release"]
    conf.substitutions.update_from_etc(root, varsdir=(f"{root}/etc/dnf/vars",))
    base.read_all_repos()
    base.fill_sack(load_system_repo=True)
    return base


def resolve(dnf: Any, base: Any, request: dict[str, Any]) -> None:  # noqa: ANN401 -- dnf has no types
    """Answer with all packages that `wanted` brings on top of `below`."""
    for name in (*request["below"], *request["wanted"]):
        try:
            base.install(name)
        except dnf.exceptions.MarkingError:
            answer(error="unknown", name=name, text="")
            return
    try:
        base.resolve()
    except dnf.exceptions.DepsolveError as error:
        answer(error="unresolved", text=str(error))
        return
    installed = {package.name: package for package in base.sack.query().installed()}
    wanted = {package.name for name in request["wanted"] for package in _matching(dnf, base, name)}
    packages = [
        {
            "name": package.name,
            "version": _version(package),
            "architecture": package.arch,
            "digest": package.chksum[1].hex() if package.chksum else "",
            "size": package.downloadsize,
            "installed": -(-package.installsize // 1024),
            "automatic": package.name not in wanted,
            "replaces": _version(installed[package.name]) if package.name in installed else None,
        }
        for package in base.transaction.install_set
    ]
    names = {package["name"] for package in packages}
    removed = [p.name for p in base.transaction.remove_set if p.name not in names]
    answer(packages=packages, removed=removed)


def fetch(dnf: Any, base: Any, request: dict[str, Any]) -> None:  # noqa: ANN401 -- dnf has no types
    """Download `packages` into `directory`; answer with the files' names and the repositories' keys."""

    class Progress(dnf.callback.DownloadProgress):  # type: ignore[misc] # dnf has no types
        """Bytes as they come."""

        def __init__(self) -> None:
            self.done: dict[str, int] = {}

        def start(self, total_files: int, total_size: int, total_drpms: int = 0) -> None:
            """Nothing: the total is known from the lock."""

        def progress(self, payload: object, done: int) -> None:
            """Bytes of one file so far."""
            self.done[str(payload)] = done
            answer(bytes=sum(self.done.values()))

        def end(self, payload: object, status: int, msg: str) -> None:
            """One file is here, or is not: the exception says so."""

    for repo in base.repos.iter_enabled():
        repo.pkgdir = request["directory"]
    packages = []
    for name in request["packages"]:
        found = _matching(dnf, base, name)
        if not found:
            answer(error="unknown", name=name, text="")
            return
        packages.append(found[0])
    base.download_packages(packages, Progress())
    keys = dict.fromkeys(key for repo in base.repos.iter_enabled() for key in repo.gpgkey)
    files = [os.path.basename(package.location) for package in packages]  # noqa: PTH119 -- of a URL's path
    answer(files=files, keys=list(keys))


def _matching(dnf: Any, base: Any, name: str) -> list[Any]:  # noqa: ANN401 -- dnf has no types
    """What the repositories have by that name, the newest first."""
    query = dnf.subject.Subject(name).get_best_query(base.sack).available()
    return list(query.latest())


def _version(package: Any) -> str:  # noqa: ANN401 -- dnf has no types
    version = f"{package.v}-{package.r}"
    return f"{package.e}:{version}" if int(package.e) else version


def main() -> None:
    """Read the request, answer it."""
    request = json.load(sys.stdin)
    try:
        import dnf  # noqa: PLC0415 -- it may be absent
    except ImportError as error:
        answer(error="missing", text=str(error))
        return
    try:
        base = opened(dnf, request)
        (fetch if "packages" in request else resolve)(dnf, base, request)
    except (dnf.exceptions.Error, OSError) as error:
        answer(error="archive", text=str(error))


if __name__ == "__main__":
    main()
