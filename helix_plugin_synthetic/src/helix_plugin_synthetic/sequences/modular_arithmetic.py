"""Evaluate sums and products modulo a number."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from helix_core.kinds.generator import GeneratorConfig, Sample, TokenGenerator

Sign = Literal["+", "-", "*"]
SIGNS: tuple[Sign, ...] = ("+", "-", "*")


class ModularArithmeticConfig(GeneratorConfig):
    """Options of ModularArithmetic."""

    modulus: int = Field(5, gt=1, le=2**20, description="numbers are 0 .. modulus - 1")
    terms: int = Field(8, gt=1, le=2**24, description="numbers in an expression")
    operators: tuple[Sign, ...] = Field(SIGNS, min_length=1, description="which signs may stand")

    @field_validator("operators")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("name each operator once")
        return value


class ModularArithmetic(TokenGenerator[ModularArithmeticConfig]):
    """`3 + 1 * 4 - 2 =`: the value modulo m is due at `=`, which alone is scored; `*` binds first, as in school.

    Delétang et al., 2023 ("modular arithmetic (simple)"). With two terms and m = 97 it is the task on which grokking
    was seen (Power et al., 2022). Tokens: the numbers, then `+`, `-`, `*`, `=`.

    >>> from helix_core import create
    >>> sample = create("generator", "modular-arithmetic", terms=3).sample(0, 0)
    >>> sample["inputs"].tolist(), int(sample["targets"][-1])
    ([1, 7, 4, 6, 4, 8], 0)
    """

    @property
    def seq_len(self) -> int:
        return 2 * self.config.terms

    @property
    def vocab_size(self) -> int:
        return self.config.modulus + len(SIGNS) + 1

    def draw(self, rng: np.random.Generator, world: None) -> Sample:
        m, n, allowed = self.config.modulus, self.config.terms, self.config.operators
        numbers = rng.integers(m, size=n)
        signs = [allowed[i] for i in rng.integers(len(allowed), size=n - 1)]
        inputs = np.empty(2 * n, np.int64)
        inputs[::2] = numbers
        inputs[1:-1:2] = [m + SIGNS.index(sign) for sign in signs]
        inputs[-1] = m + len(SIGNS)
        targets, mask = np.zeros(2 * n, np.int64), np.zeros(2 * n, bool)
        targets[-1], mask[-1] = _evaluate(numbers.tolist(), signs, m), True
        return {"inputs": inputs, "targets": targets, "mask": mask}


def _evaluate(numbers: list[int], signs: list[str], m: int) -> int:
    total, product, sign = 0, numbers[0], 1
    for operator, number in zip(signs, numbers[1:], strict=True):
        if operator == "*":
            product = product * number % m
        else:
            total += sign * product
            product, sign = number, 1 if operator == "+" else -1
    return (total + sign * product) % m
