"""Random graphs with features."""
