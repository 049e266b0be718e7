"""JAX for Helix: models compiled by XLA, on processors, graphics cards and TPUs."""
