"""Synthetic data: generators of sequences, series, images, graphs, text and pairs, and the tests that verify them."""
