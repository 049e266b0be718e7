"""The levels of the backend suite, a file each."""
