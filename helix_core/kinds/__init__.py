"""Kinds of components: a file for each, with the contract that a plugin implements."""
