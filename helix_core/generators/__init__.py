"""Generators of synthetic data: samples as a pure function of seed and index."""

from helix_core.generators.base import FieldSpec, Generator, GeneratorConfig, Sample, TokenGenerator, digest, stream

__all__ = [
    "FieldSpec",
    "Generator",
    "GeneratorConfig",
    "Sample",
    "TokenGenerator",
    "digest",
    "stream",
]
