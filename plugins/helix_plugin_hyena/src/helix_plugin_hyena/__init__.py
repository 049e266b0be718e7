"""Hyena for Helix: gated long convolutions with implicit filters, written against the op table."""
