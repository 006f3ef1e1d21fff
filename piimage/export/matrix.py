"""The variants of a cluster as jobs of a CI system, which builds them side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from piimage.cluster import Cluster

#: What the job of a GitLab pipeline extends; `docs/how-to/ci/gitlab-variants.yml` has one.
TEMPLATE = ".piimage-variant"
#: Its variables, as `piimage build` wants them.
_NAME, _NODE = "PIIMAGE_VARIANT", "PIIMAGE_NODE"


def rows(cluster: Cluster) -> list[dict[str, Any]]:
    """One for each variant, in the order of the nodes: `variant`, `node` (one of them), `nodes`, `base`.

    Nodes that one base, its packages and the same files will do for have one variant. `piimage build --only-variants
    --node NODE` builds it. Names are unique: where two variants share a role, with the number of a node behind it.
    """
    found = []
    for role in dict.fromkeys(node.role for node in cluster.nodes):
        nodes = [node for node in cluster.nodes if node.role == role]
        alone = sum(other.name == role.name for other in cluster.roles) == 1
        found.append(
            {
                "variant": role.name if alone else f"{role.name}-{nodes[0].number}",
                "node": nodes[0].name,
                "nodes": [node.name for node in nodes],
                "base": role.base,
            }
        )
    return found


def whole(cluster: Cluster) -> dict[str, Any]:
    """The list, for people and scripts."""
    return {"cluster": cluster.name, "variants": rows(cluster)}


def github(cluster: Cluster) -> dict[str, Any]:
    """A `strategy.matrix` for `fromJSON`: strings alone, so that each can stand in a job's name."""
    return {
        "include": [
            {name: row[name] for name in ("variant", "node", "base")} for row in rows(cluster)
        ]
    }


def gitlab(cluster: Cluster) -> dict[str, Any]:
    """A job for a child pipeline, which extends the template that stands before it."""
    matrix = [{_NAME: row["variant"], _NODE: row["node"]} for row in rows(cluster)]
    return {"variants": {"extends": TEMPLATE, "parallel": {"matrix": matrix}}}


FORMATS = {"json": whole, "github": github, "gitlab": gitlab}
