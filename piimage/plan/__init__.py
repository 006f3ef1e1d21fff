"""What the nodes are to hold, planned: the recipe run, and what that changes in a base."""
