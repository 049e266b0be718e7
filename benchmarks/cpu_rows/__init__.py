"""The rows of `cpu.py`, a file for each kind of work."""
