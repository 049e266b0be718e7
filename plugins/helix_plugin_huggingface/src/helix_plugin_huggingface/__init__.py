"""Hugging Face checkpoints: `helix import` and `helix export`."""
