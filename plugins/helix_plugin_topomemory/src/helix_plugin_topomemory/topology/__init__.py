"""Motifs (M0), cycles (M1), stable cores (M2) and phase synchronisation."""
