"""Generation: sampling and streaming from a model's recurrent face."""

from helix_core.generation.generate import generate
from helix_core.generation.sampling import Sampling

__all__ = ["Sampling", "generate"]
