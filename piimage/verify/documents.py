"""YAML of an image, as cloud-init and netplan read it, but strictly: a key that stands twice is a mistake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from piimage.verify.view import View


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as cloud-init reads it, but a key that stands twice is an error."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(None, None, f"`{key}` stands twice")
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def document(view: View, path: str) -> tuple[dict[str, Any], str]:
    """A YAML mapping, and what is wrong with it where it is none."""
    raw = view.read(path)
    if raw is None:
        return {}, "it is missing"
    try:
        found = yaml.load(raw.rstrip(b"\n").decode(), Loader=_Loader)  # noqa: S506 -- a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = getattr(error, "problem", None) or "it is not text"
        return {}, f"cloud-init cannot read it: {problem}"
    if found is not None and not isinstance(found, dict):
        return {}, "it is not a mapping"
    return found or {}, ""
