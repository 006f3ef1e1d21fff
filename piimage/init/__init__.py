"""A first cluster.yaml, and what the desk has already for it."""
