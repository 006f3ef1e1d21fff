"""Nothing that stands in a file makes piimage crash; what is valid stays what it was."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import clusters, load_data, to_yaml

from piimage import resolve
from piimage.errors import ConfigError
from piimage.report import Severity, render_text
from piimage.spec.schema import json_schema

VALIDATOR = jsonschema.Draft202012Validator(json_schema())
SAMPLE = Path(__file__).parents[2] / "cluster.yaml"
WORDS = st.sampled_from(
    """: - [ ] { } # & * ! | > ' " % @ ` , ? << ~ null true 0x1f 0755 1e3 yes &a *a !!str !x --- ...
    version name users network wired wifi subnet psk nodes count 1 10.0.0.0/8 locked hash env: file:
    """.split()
)
soup = st.lists(WORDS | st.sampled_from(["\n", "\n  ", " ", "\t", ": "]), max_size=60).map("".join)
quiet = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def attempt(content: bytes) -> None:
    """Load; anything but success or a told mistake lets the test fail."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "cluster.yaml"
        path.write_bytes(content)
        try:
            found = resolve.load(path, env={}).diagnostics
        except ConfigError as error:
            found = error.diagnostics
            if not any(one.severity is Severity.ERROR for one in found):
                pytest.fail("refused without an error")
    text = render_text(found, colour=True)
    assert "pydantic" not in text
    assert text.encode()[:1] in {b"", b"\x1b"}


@quiet
@given(st.binary(max_size=200))
def test_random_bytes(content):
    attempt(content)


@quiet
@given(soup)
def test_random_yaml_words(text):
    attempt(text.encode())


@quiet
@given(soup, st.integers(0, 2000))
def test_sample_with_something_inserted(text, where):
    sample = SAMPLE.read_text()
    where %= len(sample)
    attempt((sample[:where] + text + sample[where:]).encode())


@quiet
@given(st.integers(0, 2000), st.integers(0, 2000))
def test_sample_with_something_cut(start, size):
    sample = SAMPLE.read_bytes()
    attempt(sample[: start % len(sample)] + sample[start % len(sample) + size :])


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(["env:X", "file:x", "locked", "head", "10.0.0.1", "/srv/x", "{n}", "$6$x"])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


def paths(data, path=()):
    """Every place in plain data."""
    yield path
    items = (
        data.items()
        if isinstance(data, dict)
        else enumerate(data)
        if isinstance(data, list)
        else ()
    )
    for key, value in items:
        yield from paths(value, (*path, key))


@quiet
@given(st.data())
def test_sample_with_values_replaced(data):
    found = yaml.safe_load(SAMPLE.read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from([p for p in paths(found) if p]))
        parent = found
        for key in path[:-1]:
            parent = parent[key]
        if isinstance(parent, dict) and data.draw(st.booleans()):
            parent[data.draw(st.text(max_size=6))] = data.draw(values)
        else:
            parent[path[-1]] = data.draw(values)
    attempt(to_yaml(found).encode(errors="replace"))


@quiet
@given(clusters())
def test_generated_clusters_are_valid(data):
    before = copy.deepcopy(data)

    loaded = load_data(data)

    cluster = loaded.cluster
    assert data == before
    assert cluster.name == data["name"]
    assert [user.name for user in cluster.users] == [user["name"] for user in data["users"]]
    assert [user.uid for user in cluster.users] == [user["uid"] for user in data["users"]]
    assert len({node.address.ip for node in cluster.nodes}) == len(cluster.nodes)
    assert all(node.address.ip in cluster.subnet for node in cluster.nodes)
    assert [node.role.head for node in cluster.nodes].count(True) == 1
    wifi = data["network"].get("wifi")
    assert (cluster.wifi.ssid if cluster.wifi else None) == (wifi and wifi["ssid"])
    for user, written in zip(cluster.users, data["users"], strict=True):
        assert user.gecos == written.get("gecos", "")


@settings(quiet, max_examples=15)
@given(clusters())
def test_generated_clusters_fit_the_json_schema(data):
    assert list(VALIDATOR.iter_errors(data)) == []


@quiet
@given(clusters(), st.data())
def test_two_users_of_one_uid_are_always_told(data, draw):
    other = draw.draw(st.sampled_from(data["users"]))
    data["users"].append({"name": "twin-of-one", "uid": other["uid"]})

    with pytest.raises(ConfigError) as caught:
        load_data(data)

    assert any(found.code == "duplicate-uid" for found in caught.value.diagnostics)


@quiet
@given(clusters())
def test_a_secret_in_clear_is_never_told(data):
    data["network"]["wifi"] = {"ssid": "lab", "psk": "Xyzzy-plugh-42", "country": "it", "hiden": 1}
    data["users"][0]["password"] = "Plover-egg-77"
    data["users"][0]["sudo"] = "always"

    with pytest.raises(ConfigError) as caught:
        load_data(data)

    text = render_text(caught.value.diagnostics) + repr(
        [found.to_json() for found in caught.value.diagnostics]
    )
    assert "Xyzzy" not in text
    assert "Plover" not in text
