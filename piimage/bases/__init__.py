"""Bases: the images that nodes start from, made or imported once and kept outside the checkout."""
