"""`helix new`: a complete, installable plugin with passing tests, as a place to start."""

from helix_testing.scaffold.write import KINDS, write_plugin

__all__ = ["KINDS", "write_plugin"]
