"""Sentences of a random probabilistic context-free grammar."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from helix_core.kinds.generator import FieldSpec, GeneratorConfig, Sample, TokenGenerator
from helix_plugin_synthetic.sequences import next_token

END = 0
"""The token behind every sentence."""


class PCFGConfig(GeneratorConfig):
    """Options of PCFG."""

    seq_len: int = Field(256, gt=0, le=2**24, description="tokens that the model reads")
    terminals: int = Field(20, gt=0, le=2**22, description="number of different tokens besides the end of a sentence")
    nonterminals: int = Field(
        8, gt=0, le=2**16, description="number of symbols that are rewritten; 0 starts every sentence"
    )
    rules: int = Field(4, gt=1, le=2**16, description="rules of each nonterminal, half of them lexical or more")
    branching: float = Field(0.45, gt=0, lt=0.5, description="P(a rule is binary); below 1/2 every sentence ends")


@dataclass(frozen=True)
class Grammar:
    """Rules in one list, those of nonterminal A at A * R .. A * R + R - 1, with their cumulative probabilities.

    A rule is (B, C) for A -> B C or (a,) for A -> a, where a >= 1 is a token.
    """

    rules: list[tuple[int, ...]]
    probabilities: np.ndarray
    cumulative: list[list[float]]


class PCFG(TokenGenerator[PCFGConfig]):
    """Leftmost derivations of A -> B C (binary) and A -> a (lexical), cut at seq_len; the end token is 0.

    Each sample's `rules` are the rules it chose, in order. All samples of a seed share the grammar. The process of
    rewriting is subcritical, so sentences are finite without a cap on depth that would bias them (Booth and
    Thompson, 1973).

    >>> from helix_core import create
    >>> sample = create("generator", "pcfg", seq_len=8).sample(0, 0)
    >>> sample["inputs"].tolist()
    [12, 0, 10, 0, 17, 13, 15, 0]
    """

    @property
    def seq_len(self) -> int:
        return self.config.seq_len

    @property
    def vocab_size(self) -> int:
        return self.config.terminals + 1

    def schema(self) -> dict[str, FieldSpec]:
        return {**super().schema(), "rules": FieldSpec("int32", (None,), "rules in the order of their use")}

    def make_world(self, rng: np.random.Generator) -> Grammar:
        c = self.config
        binary = max(1, c.rules // 2)
        rules: list[tuple[int, ...]] = []
        probabilities = np.empty((c.nonterminals, c.rules))
        for A in range(c.nonterminals):
            pairs = rng.integers(c.nonterminals, size=(binary, 2)).tolist()
            words = (1 + rng.integers(c.terminals, size=c.rules - binary)).tolist()
            rules += [tuple(pair) for pair in pairs] + [(word,) for word in words]
            probabilities[A, :binary] = c.branching * rng.dirichlet(np.ones(binary))
            probabilities[A, binary:] = (1 - c.branching) * rng.dirichlet(np.ones(c.rules - binary))
        return Grammar(rules, probabilities, np.cumsum(probabilities, axis=1).tolist())

    def draw(self, rng: np.random.Generator, world: Grammar) -> Sample:
        n, R = self.config.seq_len + 1, self.config.rules
        tokens: list[int] = []
        used: list[int] = []
        stack: list[int] = []
        while len(tokens) < n:
            if not stack:
                stack = [-1, 0]  # a sentence, and its end below it
            A = stack.pop()
            if A < 0:
                tokens.append(END)
                continue
            rule = A * R + min(bisect_right(world.cumulative[A], rng.random()), R - 1)
            used.append(rule)
            right = world.rules[rule]
            if len(right) == 1:
                tokens.append(right[0])
            else:
                stack += (right[1], right[0])
        return {**next_token(np.array(tokens)), "rules": np.array(used, np.int32)}
