"""Measuring one piece of work beside its peers: each side in a process of its own, samples taken in turn."""
