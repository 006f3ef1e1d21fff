"""What a cluster is beyond its cluster.yaml: keys, passwords, cards."""
