"""Decoding on the CPU: a model's step, recorded once and run as one native program for every token."""
