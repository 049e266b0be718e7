"""Motifs (M0), cycles (M1), stable cores (M2) and phase synchronisation."""

from helix_plugin_topomemory.topology.cores import Cores, stable_cores
from helix_plugin_topomemory.topology.cycles import MotifCycle, motif_cycles, period, periodicity
from helix_plugin_topomemory.topology.motifs import SignalMotif, SymbolMotif, signal_motifs, symbol_motifs
from helix_plugin_topomemory.topology.phase import bandpass, plv, plv_matrix, wpli

__all__ = [
    "Cores",
    "MotifCycle",
    "SignalMotif",
    "SymbolMotif",
    "bandpass",
    "motif_cycles",
    "period",
    "periodicity",
    "plv",
    "plv_matrix",
    "signal_motifs",
    "stable_cores",
    "symbol_motifs",
    "wpli",
]
