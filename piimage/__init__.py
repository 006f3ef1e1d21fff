"""piimage: one cluster.yaml in, SD cards for a Raspberry Pi cluster out."""

__version__ = "0.1.0"
