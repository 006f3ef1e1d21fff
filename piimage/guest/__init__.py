"""Programs that are shipped into an image and run on a node.

They import nothing of ours and nothing of ours imports them: components read their source. Python 3.9, the
standard library, and what the node's packages bring.
"""
