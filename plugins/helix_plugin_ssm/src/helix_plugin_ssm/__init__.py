"""State-space layers for Helix, each written once against the op table."""
