"""Meaning induction (SIM/MIL): from raw bytes to links that predict, in three phases driven by evidence."""

from helix_plugin_topomemory.meaning.induction import Induction, induce
from helix_plugin_topomemory.meaning.recipe import MeaningRecipe

__all__ = ["Induction", "MeaningRecipe", "induce"]
