"""Named datasets: generator, options and seed are fixed, and the content's fingerprint is recorded.

A preset never changes; a better one gets another name. The fingerprints are of the samples, not of files, so they hold
for every format. Float samples are computed in float64 and stored in float32, which hides the last-bit differences
between processors' math libraries but for about one value in 10**8.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from helix_core.errors import UsageError
from helix_core.kinds.generator import digest
from helix_core.suggest import did_you_mean
from helix_plugin_synthetic.storage.plan import Plan

BLOCK = 64


@dataclass(frozen=True)
class Preset:
    """One dataset. `content` is the fingerprint of its samples."""

    name: str
    summary: str
    generator: str
    n: int
    content: str
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 2026

    def plan(self, **rest: Any) -> Plan:
        """Its plan: `format` and `shard_size` may be chosen."""
        return Plan.of(f"synthetic/{self.generator}", dict(self.options), seed=self.seed, n=self.n, **rest)

    def fingerprint(self) -> str:
        """The content's fingerprint, computed anew."""
        plan = self.plan()
        generator = plan.make()
        return fingerprint(
            [generator.sample(self.seed, i) for i in range(k, min(k + BLOCK, self.n))] for k in range(0, self.n, BLOCK)
        )


def fingerprint(blocks: Iterable[list[dict[str, Any]]]) -> str:
    """One fingerprint of blocks of samples."""
    return hashlib.blake2b("".join(digest(block) for block in blocks).encode(), digest_size=16).hexdigest()


def preset(name: str) -> Preset:
    """A preset by name. Raises UsageError if there is none."""
    if name not in PRESETS:
        raise UsageError(f"no preset {name!r}{did_you_mean(name, PRESETS)}", hint="`helix data presets` lists them")
    return PRESETS[name]


PRESETS: dict[str, Preset] = {
    p.name: p
    for p in (
        Preset("markov-16", "first-order chain of 16 states", "markov", 1000, "6d4b6006b48093928f8c8529fe9eb236"),
        Preset("pcfg-20", "sentences of a grammar of 20 words", "pcfg", 1000, "8667a54258bb2bba64f75747896ad1c4"),
        Preset("zipf-256", "words with Zipf's frequencies", "zipf", 1000, "bde9195e316ca9fddada6138f23cf041"),
        Preset("copying-100", "10 tokens over a gap of 100", "copying", 1000, "890cfe5bb979b2c2195524084b8d98a9"),
        Preset(
            "selective-copying-4096",
            "the task of the Mamba paper",
            "selective-copying",
            500,
            "3f2147d5e2574853a9b5cfc61a8d1aee",
        ),
        Preset(
            "selective-copying-256",
            "the same, shorter",
            "selective-copying",
            1000,
            "565f7c38d85a1599a63188bc094b25ff",
            {"context": 256},
        ),
        Preset(
            "induction-heads-256",
            "the task of the Mamba paper",
            "induction-heads",
            1000,
            "e5b84abfbc94757892616f99a3b871a3",
        ),
        Preset(
            "mqar-256",
            "16 pairs in 256 tokens (Zoology)",
            "associative-recall",
            1000,
            "63f6f63c42180961bd76e0f72b4bde9a",
        ),
        Preset("listops-128", "nested lists of up to 128 tokens", "listops", 1000, "320d18129f1cbaaffc3200e76564b33a"),
        Preset("dyck-4", "four kinds of brackets, depth 16", "dyck", 1000, "befefd5fe0fe35919594846331ce075a"),
        Preset(
            "grokking-97",
            "a + b mod 97",
            "modular-arithmetic",
            5000,
            "00ec949ba10b84312f19106ad297eb51",
            {"modulus": 97, "terms": 2, "operators": ["+"]},
        ),
        Preset(
            "daily-season",
            "trend and daily season, 10 % missing",
            "trend-seasonality",
            500,
            "7ba7c304df88794648da5e1af3e67f72",
            {"missing": 0.1},
        ),
        Preset("pink-noise", "1/f noise", "power-law-noise", 500, "1350f956e3b5b25ec94003ca74c27420"),
        Preset("regimes-3", "three regimes", "regime-shifts", 500, "598a693d06da87ef199f27d4655b8cee"),
        Preset("arma-2-1", "ARMA(2, 1)", "arma", 500, "0fa0fdd0f6f853af4f5747f8ba522530"),
        Preset("shapes-64", "circles, triangles, squares, hexagons", "shapes", 500, "c7b0e6d73852d1b4eb6878ffcf9fa876"),
        Preset("textures-64", "gratings, checkerboards, noise", "textures", 500, "27d03198b5f946462c6a7de8c691aee5"),
        Preset("fractals-128", "four self-similar sets", "fractals", 100, "218cc0e764288a0f8b25ec3845fedf1c"),
        Preset(
            "communities-100",
            "four communities of 25 nodes",
            "stochastic-block",
            200,
            "5618ff40d3fb8578c92525fd66942d0d",
        ),
        Preset("small-worlds-100", "rings with shortcuts", "watts-strogatz", 200, "cb387468fbc020210df517030e6d7526"),
        Preset("little-english", "sentences that agree", "grammar-text", 1000, "ff59921ae03a8ff00a05760f33673d7e"),
        Preset("facts", "filled templates", "templates", 1000, "6c36523aa07b966145cd16893d937338"),
        Preset("scenes-64", "image, caption and sound", "scenes", 300, "db2ad1040f8f5c9b0bd26ab3395c3568"),
        Preset(
            "scenes-64-noisy",
            "the same with 20 % wrong captions",
            "scenes",
            300,
            "183b60c7b8627922ab3eb43ecc93266a",
            {"mismatch": 0.2},
        ),
    )
}
