"""A complete outside plugin for Helix: a backend with a kernel, and a layer."""
