"""cluster.yaml: its fields, how it is read, and what is wrong with it."""
