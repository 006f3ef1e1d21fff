"""Files for the desk beside the cluster: how other tools find its nodes, and a picture of it."""
