"""Packages for a base: resolved, locked, fetched, and installed in a tree of another architecture by an engine."""
