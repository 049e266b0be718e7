"""Fake installed plugins for the tests of core."""

from helix_testing.sites import site, status

__all__ = ["site", "status"]
