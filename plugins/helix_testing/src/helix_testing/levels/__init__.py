"""The levels of the backend suite, a file each."""

NOT_IMPLEMENTED = "not implemented"
"""What a skipped test says of a capability that the backend does not declare."""
