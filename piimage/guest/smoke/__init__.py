"""The smoke test of a cluster: runs on its head as its first user, with the Python of the node (3.7 or newer).

Its modules are copied to /usr/lib/piimage/smoke as they are, so they import each other relatively
and nothing but the standard library.
"""
