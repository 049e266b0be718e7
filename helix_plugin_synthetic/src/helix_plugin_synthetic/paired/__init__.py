"""Several modalities of one hidden thing."""
