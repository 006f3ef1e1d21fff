"""Proof after the fact: an image or a card is read again, and every promise and every known trap is looked at."""
