"""What differs between distributions and cannot be read from an image."""
