"""Topological memory: U/I/S links, motifs, cycles, stable cores and hybrid retrieval."""
