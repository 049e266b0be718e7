"""Layers around and beside the mixers: attention, gated MLPs, mixtures of experts."""
