"""Time series with known parameters."""
