"""What is copied onto the nodes and runs there: data to piimage, which imports none of it."""
