"""Labelled images with known geometry."""
