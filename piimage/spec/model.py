"""The fields of cluster.yaml, one model per mapping. What holds across them: `piimage.spec.checks`.

Models are strict (no `"3"` for 3) and refuse unknown keys. `WHAT` names the mapping in messages.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from piimage.spec.references import Base, Password, Psk, SshKey
from piimage.spec.types import (
    Address,
    CmdlineToken,
    ConfigLine,
    Country,
    Domain,
    Gecos,
    GuestPath,
    HomePath,
    HostName,
    Keymap,
    Locale,
    Mac,
    Mode,
    NamePattern,
    PackageName,
    ProfileName,
    SafeName,
    Server,
    SharePath,
    ShellPath,
    Ssid,
    Subnet,
    TimezoneName,
    UnitName,
    UserName,
    Version,
)

MAX_NODES = 1000
MAX_UID = 59999
MAX_SLOTS = 1024

#: Model tags that pydantic puts into an error's location; `messages` takes them out again.
COUNT_TAG, LIST_TAG = "<count>", "<list>"


class Model(BaseModel):
    """A mapping of cluster.yaml."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True
    )
    WHAT: ClassVar[str] = ""
    #: Of a file of its own: which models stand in its mappings, as `field.KEY`.
    INSIDE: ClassVar[dict[str, type[Model]]] = {}


class Traits(Model):
    """What a profile, a role or a node may set: everything but identity."""

    base: Base | None = Field(None, description="catalog name or path of the image to start from")
    target: Literal["multi-user", "graphical"] | None = Field(None, description="what to boot into")
    wifi: bool | None = Field(None, description="whether these nodes use network.wifi")
    packages: list[PackageName] = Field([], description="further packages, by logical name")
    overlays: list[SafeName] = Field([], description="overlays, applied in this order")
    profiles: list[ProfileName] = Field([], description="profiles; what stands here goes over them")
    cmdline: list[CmdlineToken] = Field([], description="tokens for the kernel's command line")
    config_txt: list[ConfigLine] = Field([], description="lines for the firmware's config.txt")


class Profile(Traits):
    """A file of profiles/role or profiles/board."""

    WHAT: ClassVar[str] = "a profile"
    description: str = Field("", description="one line for people")


class OverlayFile(Model):
    """An entry of `files` of an overlay."""

    WHAT: ClassVar[str] = "a file of an overlay"
    mode: Mode | None = Field(None, description="octal, in quotes")
    owner: UserName | None = Field(None, description="a user of the cluster or of the base")
    group: UserName | None = Field(None, description="default: the owner's")
    per_node: bool = Field(default=False, description="a template that is filled for each node")


class Overlay(Model):
    """A file NAME/overlay.yaml of overlays."""

    WHAT: ClassVar[str] = "an overlay"
    INSIDE: ClassVar[dict[str, type[Model]]] = {"files": OverlayFile}
    description: str = Field("", description="one line for people")
    files: dict[GuestPath, OverlayFile] = Field({}, description="what git does not keep of files")
    replaces: list[GuestPath] = Field([], description="what it writes though something else does")
    removes: list[GuestPath] = Field([], description="what is to go")
    packages: list[PackageName] = Field([], description="by logical name")
    enable: list[UnitName] = Field([], description="units to start at boot")
    disable: list[UnitName] = Field([], description="units not to start at boot")
    mask: list[UnitName] = Field([], description="units that nothing may start")


class Role(Traits):
    """An entry of `roles`."""

    WHAT: ClassVar[str] = "a role"


class NodeEntry(Traits):
    """An entry of `nodes` in list form."""

    WHAT: ClassVar[str] = "a node"
    name: HostName | None = Field(None, description="host name; default node0, node1...")
    mac: Mac | None = Field(None, description="address of the wired port")
    board: SafeName | None = Field(None, description="a file of profiles/board, such as pi4")
    role: SafeName | None = Field(None, description="head, worker or an entry of roles")
    address: Address | None = Field(None, description="wired address; default first + its place")


class NodeCount(Model):
    """`nodes` in count form."""

    WHAT: ClassVar[str] = "the count form of `nodes`"
    count: int = Field(ge=1, le=MAX_NODES, description="how many nodes")
    name: NamePattern = Field("node{n}", description="host name; {n} or {n:02} is the number")
    head: int = Field(0, ge=0, description="number of the node that has the role head")
    board: SafeName | None = Field(None, description="a file of profiles/board, such as pi4")


class User(Model):
    """An entry of `users`."""

    WHAT: ClassVar[str] = "a user"
    name: UserName
    uid: int = Field(ge=1, le=MAX_UID, description="the same on every node")
    gid: int | None = Field(None, ge=1, le=MAX_UID, description="default: the uid")
    group: UserName | None = Field(None, description="primary group; default: the name")
    home: HomePath | None = Field(None, description="default: /home/NAME")
    shell: ShellPath = "/bin/bash"
    gecos: Gecos = Field("", description="full name")
    groups: list[UserName] | None = Field(None, description="further groups, by logical name")
    sudo: Literal["none", "password", "nopasswd"] = "none"
    ssh_keys: list[SshKey] = Field([], description="file:PATH, gh:NAME, lp:NAME or a key line")
    password: Password | None = Field(None, description="locked, env:NAME, file:PATH or {hash}")
    rename_from: UserName | None = Field(
        None, description="auto, or the image's own user that becomes this one"
    )


class Root(Model):
    """`root`."""

    WHAT: ClassVar[str] = "`root`"
    password: Password | None = Field(None, description="locked, env:NAME, file:PATH or {hash}")


class Wired(Model):
    """`network.wired`."""

    WHAT: ClassVar[str] = "`network.wired`"
    subnet: Subnet
    first: Address | None = Field(
        None, description="address of node 0; default: the lowest that is free"
    )
    gateway: Address | None = Field(
        None, description="router on the wire; only for clusters without Wi-Fi"
    )
    dns: list[Address] = Field([], description="name servers, with a gateway; default: it")


class Wifi(Model):
    """`network.wifi`."""

    WHAT: ClassVar[str] = "`network.wifi`"
    ssid: Ssid
    psk: Psk
    country: Country
    hidden: bool = Field(default=False, description="the access point does not announce itself")


class Network(Model):
    """`network`."""

    WHAT: ClassVar[str] = "`network`"
    wired: Wired
    wifi: Wifi | None = None


class Time(Model):
    """`time`."""

    WHAT: ClassVar[str] = "`time`"
    servers: list[Server] = Field([], description="what the head asks; the others ask the head")


class Ssh(Model):
    """`ssh`."""

    WHAT: ClassVar[str] = "`ssh`"
    password_authentication: bool = True
    x11_forwarding: bool = False
    trust: Literal["star", "mesh"] = Field(
        "star", description="star: the head reaches all; mesh: all reach all"
    )


class Share(Model):
    """An entry of `shares`."""

    WHAT: ClassVar[str] = "a share"
    path: SharePath
    server: HostName = Field("head", description="a node, or a role that one node has")
    owner: UserName | None = None
    mode: Mode = Field("0755", description="octal, in quotes")


class Mpi(Model):
    """`mpi`."""

    WHAT: ClassVar[str] = "`mpi`"
    flavour: Literal["openmpi", "mpich"] = "openmpi"
    slots: int = Field(4, ge=1, le=MAX_SLOTS, description="ranks per node")
    smoke_at_boot: bool = Field(
        default=False, description="test the cluster once, at the first boot of the head"
    )


class Blinkt(Model):
    """`blinkt`: the light bar of eight LEDs."""

    WHAT: ClassVar[str] = "`blinkt`"
    show: Literal["off", "load", "larson", "status"] = Field(
        "status", description="what it shows after a boot"
    )
    brightness: int = Field(4, ge=1, le=31, description="of each LED")


def _form(value: Any) -> str | None:  # noqa: ANN401 -- whatever the YAML holds
    if isinstance(value, list):
        return LIST_TAG
    return COUNT_TAG if isinstance(value, dict) else None


Nodes = Annotated[
    Annotated[NodeCount, Tag(COUNT_TAG)]
    | Annotated[list[NodeEntry], Field(min_length=1, max_length=MAX_NODES), Tag(LIST_TAG)],
    Discriminator(_form),
]


class Spec(Model):
    """cluster.yaml."""

    WHAT: ClassVar[str] = "cluster.yaml"
    version: Version
    name: HostName = Field(description="of the cluster, and of its directory below dist/")
    base: Base | None = Field(None, description="catalog name or path; default debian-13")
    timezone: TimezoneName = "Etc/UTC"
    locale: Locale = "C.UTF-8"
    keymap: Keymap = "us"
    domain: Domain | None = Field(None, description="DNS domain of the node names")
    users: list[User] = Field(min_length=1)
    root: Root = Root.model_construct(password=None)
    network: Network
    time: Time = Time.model_construct(servers=[])
    ssh: Ssh = Ssh.model_construct(password_authentication=True, x11_forwarding=False, trust="star")
    shares: list[Share] = Field([], description="folders that one node exports to all others")
    mpi: Mpi | None = None
    packages: list[PackageName] = Field([], description="on every node, by logical name")
    overlays: list[SafeName] = Field([], description="on every node, applied in this order")
    profiles: list[ProfileName] = Field([], description="on every node")
    roles: dict[SafeName, Role] = Field({}, description="what nodes of one kind share")
    nodes: Nodes = Field(description="a count, or a list of nodes")
    stress: bool = Field(default=False, description="install the load generator on every node")
    wolfram: bool = Field(
        default=False,
        description="install the Wolfram engine on the head; true accepts its licence; only the "
        "archive of Raspberry Pi OS has it",
    )
    blinkt: Blinkt | None = Field(
        None, description="every node has a light bar of eight LEDs (Pimoroni Blinkt)"
    )
