"""Checks that hold for any generator: the same bytes again, the schema, duplicates, one distribution throughout."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from helix_core.kinds.generator import FieldSpec, Generator, Sample, digest
from helix_plugin_synthetic.verify.check import Check, exactly
from helix_plugin_synthetic.verify.distribution_tests import anderson, c2st, closest_record, ks, mmd

FEATURES = 6
ROWS = 400
"""Samples that the permutation tests look at, at most: they compare all pairs."""


def common_checks(
    generator: Generator[Any], samples: list[Sample], seed: int, start: int, rng: np.random.Generator
) -> list[Check]:
    """Checks of samples `start` .. of a seed."""
    schema = generator.schema()
    problems = [
        f"sample {start + i}, field {name!r} {problem}"
        for i, sample in enumerate(samples)
        for name, spec in schema.items()
        if (problem := spec.problem(sample[name]))
    ]
    again = [generator.sample(seed, start + i) for i in range(min(len(samples), 200))]
    differ = sum(digest([a]) != digest([b]) for a, b in zip(again, samples, strict=False))
    copies = Counter(digest([s]) for s in samples)
    duplicates = len(samples) - len(copies)
    return [
        exactly("samples off their schema", len(problems), 0, "; ".join(problems[:3])),
        exactly("samples that differ when generated again", differ, 0, f"of the first {len(again)}"),
        Check("samples that are copies of others", value=float(duplicates), detail=f"of {len(samples)}"),
        *_one_distribution(schema, samples, rng),
    ]


def numeric_features(schema: dict[str, FieldSpec], samples: list[Sample]) -> np.ndarray | None:
    """A few numbers per sample (N, d): fixed random projections of its fields, and the length of those that vary.

    None if samples have nothing to measure.
    """
    columns = []
    rng = np.random.default_rng(0)
    for name, spec in sorted(schema.items()):
        if spec.dtype == "str" or (spec.shape and spec.shape[0] is None):
            columns.append(np.array([[len(s[name])] for s in samples], float))
            continue
        values = np.stack([np.nan_to_num(np.asarray(s[name], float)).ravel() for s in samples])
        values = values[:, values.std(0) > 0]
        if values.shape[1]:
            values = (values - values.mean(0)) / values.std(0)
            columns.append(values @ rng.standard_normal((values.shape[1], 2)) / np.sqrt(values.shape[1]))
    if not columns:
        return None
    features = np.concatenate(columns, axis=1)
    features = features[:, features.std(0) > 0]
    if features.shape[1] > FEATURES:
        features = features @ rng.standard_normal((features.shape[1], FEATURES))
    return features if features.shape[1] else None


def _one_distribution(schema: dict[str, FieldSpec], samples: list[Sample], rng: np.random.Generator) -> list[Check]:
    """Samples are drawn alike throughout: their first half is distributed as their second."""
    features = numeric_features(schema, samples[: 2 * (min(len(samples), ROWS) // 2)])
    if features is None or len(features) < 40:
        return []
    half, third = len(features) // 2, len(features) // 3
    x, y = features[:half], features[half:]
    copies, privacy = closest_record(features[:third], features[third : 2 * third], features[2 * third :], rng)
    return [
        Check("first and second half: KS", p_value=ks(x[:, 0], y[:, 0])),
        Check("first and second half: Anderson-Darling", p_value=anderson(x[:, -1], y[:, -1], rng)),
        Check("first and second half: MMD", p_value=mmd(x, y, rng)),
        Check("first and second half: C2ST", p_value=c2st(x, y, rng)),
        Check("closest records: none memorised", p_value=privacy, detail=f"{copies} of equal features"),
    ]
