"""Cards: which device may be written, what goes on it, and that it is there."""
