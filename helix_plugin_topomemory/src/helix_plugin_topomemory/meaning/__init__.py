"""Meaning induction (SIM/MIL): from raw bytes to links that predict, in three phases driven by evidence."""

from helix_plugin_topomemory.meaning.config import MeaningRecipe
from helix_plugin_topomemory.meaning.induction import Induction, induce

__all__ = ["Induction", "MeaningRecipe", "induce"]
