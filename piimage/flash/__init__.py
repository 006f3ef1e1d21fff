"""Writing cards: which device may be written to, what is written, and whether the card kept it."""
