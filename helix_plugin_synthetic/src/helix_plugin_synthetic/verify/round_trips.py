"""From a generator's samples back to its options: one function per generator, by its class.

A third party adds its own: `@round_trips.register` on a function of (generator, samples, seed).
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from functools import singledispatch
from typing import Any

import numpy as np
from scipy import stats

from helix_core.kinds.generator import Generator, Sample
from helix_plugin_synthetic.graphs.barabasi_albert import BarabasiAlbert
from helix_plugin_synthetic.graphs.erdos_renyi import ErdosRenyi
from helix_plugin_synthetic.graphs.stochastic_block import StochasticBlock
from helix_plugin_synthetic.graphs.watts_strogatz import WattsStrogatz
from helix_plugin_synthetic.images.fractals import FRACTALS, Fractals, dimension
from helix_plugin_synthetic.images.shapes import SHAPES, Shapes
from helix_plugin_synthetic.images.textures import TEXTURES, Textures
from helix_plugin_synthetic.paired.scenes import Scenes
from helix_plugin_synthetic.sequences.associative_recall import AssociativeRecall
from helix_plugin_synthetic.sequences.copying import Copying
from helix_plugin_synthetic.sequences.induction_heads import InductionHeads
from helix_plugin_synthetic.sequences.markov import Markov
from helix_plugin_synthetic.sequences.pcfg import PCFG
from helix_plugin_synthetic.sequences.selective_copying import SelectiveCopying
from helix_plugin_synthetic.sequences.zipf import Zipf
from helix_plugin_synthetic.series.arma import ARMA
from helix_plugin_synthetic.series.power_law_noise import PowerLawNoise
from helix_plugin_synthetic.series.regime_shifts import RegimeShifts
from helix_plugin_synthetic.series.trend_seasonality import TrendSeasonality
from helix_plugin_synthetic.text.grammar_text import GrammarText, expected_words
from helix_plugin_synthetic.text.templates import Templates
from helix_plugin_synthetic.verify import estimators
from helix_plugin_synthetic.verify.check import Check, at_least, exactly
from helix_plugin_synthetic.verify.distribution_tests import chi2
from helix_plugin_synthetic.verify.scene_decoders import from_caption, from_image, from_sound

FITS = 12
"""ARMA processes are fitted to so many samples at most: each takes a good part of a second."""


@singledispatch
def round_trips(generator: Generator[Any], samples: list[Sample], seed: int) -> list[Check]:
    """Checks of a generator's samples against its own options; none is known for generators of other distributions."""
    return []


@round_trips.register
def _(generator: Markov, samples: list[Sample], seed: int) -> list[Check]:
    c, world = generator.config, generator.world(seed)
    rows = np.stack([np.r_[s["inputs"], s["targets"][-1]] for s in samples])
    counts = estimators.transition_counts(rows, c.vocab_size, c.order)
    expected = world.transitions.reshape(counts.shape) * counts.sum(1, keepdims=True)
    # Rows are independent given their sums: the statistics and degrees of freedom of all rows add up.
    statistic = freedom = 0.0
    for found, due in zip(counts, expected, strict=True):
        big = due >= 5
        f, d = np.r_[found[big], found[~big].sum()], np.r_[due[big], due[~big].sum()]
        f, d = f[d >= 5], d[d >= 5]
        if len(d) > 1:
            # Merged cells that stayed small are left out; the rest is compared within itself.
            d = d * f.sum() / d.sum()
            statistic, freedom = statistic + float(((f - d) ** 2 / d).sum()), freedom + len(d) - 1
    p = float(stats.chi2.sf(statistic, freedom)) if freedom else 1.0
    logs = np.log2(world.transitions.reshape(counts.shape), where=counts > 0, out=np.zeros_like(counts))
    bits = -float((counts * logs).sum() / counts.sum())
    return [
        Check("transition matrix", p_value=p, detail=f"chi2 {statistic:.1f} with {freedom:.0f} degrees of freedom"),
        Check("bits per token of the best predictor", value=bits, expected=world.entropy_rate),
    ]


@round_trips.register
def _(generator: Zipf, samples: list[Sample], seed: int) -> list[Check]:
    c = generator.config
    tokens = np.concatenate([s["targets"] for s in samples])
    counts = np.bincount(tokens, minlength=c.vocab_size)
    found = estimators.zipf_exponent(tokens, c.vocab_size, c.shift)
    return [
        found.check("exponent", c.exponent, "maximum likelihood"),
        Check("frequencies", p_value=chi2(counts, generator.frequencies() * len(tokens)), detail="chi2"),
    ]


@round_trips.register
def _(generator: PCFG, samples: list[Sample], seed: int) -> list[Check]:
    P = generator.world(seed).probabilities
    counts = np.bincount(np.concatenate([s["rules"] for s in samples]), minlength=P.size).reshape(P.shape)
    checks = []
    for A, (found, p) in enumerate(zip(counts, P, strict=True)):
        if found.sum() * p.min() >= 5:
            checks.append(Check(f"rules of symbol {A}", p_value=chi2(found, p * found.sum()), detail="chi2"))
    return checks


@round_trips.register(Copying)
@round_trips.register(SelectiveCopying)
@round_trips.register(InductionHeads)
def _(generator: Copying, samples: list[Sample], seed: int) -> list[Check]:
    answers = np.concatenate([s["targets"][s["mask"]] for s in samples])
    first = 1 if isinstance(generator, InductionHeads) else 2
    counts = np.bincount(answers, minlength=generator.vocab_size)[first:]
    expected = np.full(len(counts), len(answers) / len(counts))
    return [Check("answers are uniform", p_value=chi2(counts, expected), detail="chi2")]


@round_trips.register
def _(generator: AssociativeRecall, samples: list[Sample], seed: int) -> list[Check]:
    n = generator.config.pairs
    right = asked = 0
    for s in samples:
        pairs = dict(zip(s["inputs"][: 2 * n : 2].tolist(), s["inputs"][1 : 2 * n : 2].tolist(), strict=True))
        answers = [pairs.get(key) for key in s["inputs"][s["mask"]].tolist()]
        right += sum(a == b for a, b in zip(answers, s["targets"][s["mask"]].tolist(), strict=True))
        asked += len(answers)
    return [exactly("a dictionary answers all", right, asked)]


@round_trips.register
def _(generator: TrendSeasonality, samples: list[Sample], seed: int) -> list[Check]:
    c = generator.config
    checks = []
    if c.noise > 0:
        degree = 2 if c.curvature else 1
        found = estimators.pooled([estimators.slope(s["values"], c.periods, degree) for s in samples])
        checks.append(found.check("slope", c.slope, "least squares beside the seasons"))
    if len(c.periods) == 1 and c.noise > 0 and not c.curvature and not c.missing and abs(c.amplitudes[0]) > c.noise / 2:
        found = estimators.pooled([estimators.period(s["values"]) for s in samples])
        checks.append(found.check("period", c.periods[0], "periodogram, refined by least squares"))
    if c.noise > 0:
        rest = np.concatenate([s["values"] - s["trend"] - s["season"] for s in samples])
        rest = rest[np.isfinite(rest)]
        checks.append(Check("noise is normal", p_value=float(stats.kstest(rest / c.noise, "norm").pvalue), detail="KS"))
    return checks + _missing(generator, samples)


@round_trips.register
def _(generator: ARMA, samples: list[Sample], seed: int) -> list[Check]:
    c = generator.config
    checks = _missing(generator, samples)
    if c.missing or c.length < 100 or not (c.ar or c.ma):
        return checks
    fits = [estimators.arma(s["values"], len(c.ar), c.integrate, len(c.ma)) for s in samples[:FITS]]
    names = [f"ar {i + 1}" for i in range(len(c.ar))] + [f"ma {i + 1}" for i in range(len(c.ma))]
    for name, truth, found in zip(names, (*c.ar, *c.ma), zip(*fits, strict=True), strict=True):
        # Estimates of a fit scatter as they do, which is safer than the errors that each fit states.
        values = np.array([e.value for e in found])
        mean, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
        p = float(2 * stats.t.sf(abs(mean - truth) / error, len(values) - 1))
        half = float(stats.t.ppf(0.995, len(values) - 1) * error)
        checks.append(
            Check(name, value=mean, low=mean - half, high=mean + half, expected=truth, p_value=p, detail="ML")
        )
    return checks


@round_trips.register
def _(generator: PowerLawNoise, samples: list[Sample], seed: int) -> list[Check]:
    c = generator.config
    checks = _missing(generator, samples)
    if not c.missing:
        found = estimators.pooled([estimators.spectral_exponent(s["values"].astype(float)) for s in samples])
        checks.append(found.check("exponent", c.exponent, "regression of the log periodogram"))
    return checks


@round_trips.register
def _(generator: RegimeShifts, samples: list[Sample], seed: int) -> list[Check]:
    c = generator.config
    regime = np.stack([s["regime"] for s in samples])
    jumps = int((np.diff(regime, axis=1) != 0).sum())
    checks = [estimators.share(jumps, regime[:, 1:].size, 1 / c.dwell, "probability of a jump")]
    if c.noise > 0:
        rest = np.concatenate([s["values"] - c.separation * s["regime"] for s in samples])
        rest = rest[np.isfinite(rest)]
        checks.append(Check("noise is normal", p_value=float(stats.kstest(rest / c.noise, "norm").pvalue), detail="KS"))
    return checks + _missing(generator, samples)


def _missing(generator: Generator[Any], samples: list[Sample]) -> list[Check]:
    c = generator.config
    if not c.missing:
        return []
    holes = np.stack([np.isnan(s["values"]) for s in samples])
    if c.gaps == "single":
        return [estimators.share(int(holes.sum()), holes.size, c.missing, "share of missing values")]
    shares = holes.mean(1)
    found = estimators.Estimate(float(shares.mean()), float(shares.std(ddof=1) / np.sqrt(len(shares))))
    return [found.check("share of missing values", c.missing)]


@round_trips.register
def _(generator: Shapes, samples: list[Sample], seed: int) -> list[Check]:
    counts = np.bincount([int(s["label"]) for s in samples], minlength=len(SHAPES))
    checks = [Check("labels are balanced", p_value=chi2(counts, np.full(len(SHAPES), len(samples) / len(SHAPES))))]
    if generator.config.noise == 0:
        ratios = []
        for s in samples:
            ground = s["image"][0, 0].astype(float)
            step = s["color"].astype(float) - ground
            area = ((s["image"] - ground) @ step / (step @ step)).sum()
            ratios.append(np.sqrt(area / np.pi) / s["radius"])
        inside = float(np.mean(np.abs(np.array(ratios) - 1) < 0.03))
        checks.append(at_least("radius from the painted area, within 3 %", inside, 0.99))
    return checks


@round_trips.register
def _(generator: Textures, samples: list[Sample], seed: int) -> list[Check]:
    counts = np.bincount([int(s["label"]) for s in samples], minlength=len(TEXTURES))
    checks = [Check("labels are balanced", p_value=chi2(counts, np.full(len(TEXTURES), len(samples) / len(TEXTURES))))]
    S = generator.config.size
    window = np.hanning(S)[:, None] * np.hanning(S)
    hits = []
    for s in samples:
        if s["label"] == 0:
            power = np.abs(np.fft.rfft2((s["image"] - s["image"].mean()) * window, (4 * S, 4 * S)))
            row, column = np.unravel_index(np.argmax(power), power.shape)
            row = row - 4 * S if row > 2 * S else row
            hits.append(abs(np.hypot(row, column) / 4 - s["frequency"]) < 0.5)
    if hits:
        checks.append(at_least("frequency of gratings, within half a cycle", float(np.mean(hits)), 0.99))
    return checks


@round_trips.register
def _(generator: Fractals, samples: list[Sample], seed: int) -> list[Check]:
    checks = []
    for label, name in enumerate(FRACTALS):
        found = [estimators.box_dimension(s["image"]) for s in samples if s["label"] == label]
        if found:
            mean, truth = float(np.mean(found)), dimension(label)
            checks.append(
                Check(
                    f"dimension of {name}",
                    ok=abs(mean - truth) < 0.15,
                    value=mean,
                    expected=truth,
                    detail="boxes, ± 0.15",
                )
            )
    return checks


@round_trips.register
def _(generator: ErdosRenyi, samples: list[Sample], seed: int) -> list[Check]:
    n = generator.config.nodes
    edges = sum(len(s["edges"]) for s in samples)
    return [estimators.share(edges, len(samples) * n * (n - 1) // 2, generator.config.p, "p")]


@round_trips.register
def _(generator: BarabasiAlbert, samples: list[Sample], seed: int) -> list[Check]:
    n, m = generator.config.nodes, generator.config.m
    wrong = sum(len(s["edges"]) != m * (n - m) for s in samples)
    degrees = np.concatenate([np.bincount(s["edges"].ravel(), minlength=n) for s in samples])
    found, truth = float((degrees == m).mean()), 2 / (m + 2)
    checks = [exactly("graphs without m (n - m) edges", wrong, 0)]
    if n >= 50 * m:
        checks.append(
            Check(
                "share of nodes of degree m", ok=abs(found - truth) < 0.05, value=found, expected=truth, detail="± 0.05"
            )
        )
    return checks


@round_trips.register
def _(generator: WattsStrogatz, samples: list[Sample], seed: int) -> list[Check]:
    n, k, p = generator.config.nodes, generator.config.k, generator.config.p
    edges = np.concatenate([s["edges"] for s in samples])
    apart = edges[:, 1] - edges[:, 0]
    kept = int((np.minimum(apart, n - apart) <= k // 2).sum())
    checks = [exactly("edges per graph", len(edges) / len(samples), n * k / 2)]
    if n >= 10 * k:
        found = 1 - kept / len(edges)
        checks.append(Check("share of rewired edges", ok=abs(found - p) < 0.1 * p + 0.01, value=found, expected=p))
    return checks


@round_trips.register
def _(generator: StochasticBlock, samples: list[Sample], seed: int) -> list[Check]:
    c, sizes = generator.config, np.bincount(generator.labels)
    inside_pairs = int((sizes * (sizes - 1) // 2).sum())
    pairs = c.nodes * (c.nodes - 1) // 2
    inside = sum(int((s["label"][s["edges"]][:, 0] == s["label"][s["edges"]][:, 1]).sum()) for s in samples)
    all_edges = sum(len(s["edges"]) for s in samples)
    checks = []
    if inside_pairs:
        checks.append(estimators.share(inside, len(samples) * inside_pairs, c.inside, "probability inside a block"))
    if pairs > inside_pairs:
        rest = len(samples) * (pairs - inside_pairs)
        checks.append(estimators.share(all_edges - inside, rest, c.between, "probability between blocks"))
    return checks


@round_trips.register
def _(generator: GrammarText, samples: list[Sample], seed: int) -> list[Check]:
    expected = expected_words(generator.config.grammar, generator.config.start)
    lines = list(itertools.chain.from_iterable(s["text"].split("\n") for s in samples))
    counted = [Counter(line.split()) for line in lines]
    unknown = sum(len(set(c) - set(expected)) for c in counted)
    checks = [exactly("words that the grammar lacks", unknown, 0)]
    p = []
    for word, mean in expected.items():
        counts = np.array([c[word] for c in counted], float)
        if counts.std() > 0 and counts.sum() >= 30:
            p.append(2 * stats.norm.sf(abs(counts.mean() - mean) / (counts.std(ddof=1) / np.sqrt(len(counts)))))
    if p:
        checks.append(
            Check("word frequencies", p_value=float(min(1.0, min(p) * len(p))), detail=f"least of {len(p)}, Bonferroni")
        )
    return checks


@round_trips.register
def _(generator: Templates, samples: list[Sample], seed: int) -> list[Check]:
    templates = generator.config.templates
    wrong = sum(templates[s["template"]].format(**json.loads(s["values"])) != s["text"] for s in samples)
    counts = np.bincount([int(s["template"]) for s in samples], minlength=len(templates))
    return [
        exactly("texts that do not say their values", wrong, 0),
        Check("templates are balanced", p_value=chi2(counts, np.full(len(counts), len(samples) / len(counts)))),
    ]


@round_trips.register
def _(generator: Scenes, samples: list[Sample], seed: int) -> list[Check]:
    latent = np.stack([s["latent"] for s in samples])
    seen = np.stack([from_image(s["image"]) for s in samples])
    told = np.stack([from_caption(s["caption"]) for s in samples])
    heard = np.stack([from_sound(s["sound"]) for s in samples])
    agree = (told == seen).all(1)
    return [
        at_least("image shows the latent", float((seen == latent).all(1).mean()), 0.97),
        at_least("sound tells shape, size and side", float((heard == latent[:, [0, 2, 3]]).all(1).mean()), 0.97),
        at_least(
            "image and caption agree where they were planted to",
            float((agree == np.array([s["matched"] for s in samples])).mean()),
            0.97,
        ),
        estimators.share(int((~(told == latent).all(1)).sum()), len(samples), generator.config.mismatch, "mismatch"),
    ]
