"""The recipe: a module per line of it, each a pure function of cluster, role or node, and facts."""
