"""Fake installed plugins for the tests of optimizers."""

from helix_testing.sites import site

__all__ = ["site"]
