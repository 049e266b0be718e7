"""Sentences of a grammar that the user writes."""

from __future__ import annotations

import numpy as np
from pydantic import Field, field_validator, model_validator

from helix_core.kinds.generator import FieldSpec, Generator, GeneratorConfig, Sample

ENGLISH = {
    "S": ["NP1 VP1 .", "NPs VPs ."],
    "NP1": ["the N1", "a N1", "the A N1", "the N1 PP"],
    "NPs": ["the Ns", "many Ns", "the A Ns"],
    "VP1": ["Vi1", "Vt1 NP1", "Vt1 NPs", "says that S1"],
    "VPs": ["Vis", "Vts NP1", "Vts NPs"],
    "S1": ["NP1 Vi1", "NPs Vis"],
    "PP": ["near NP1", "behind NPs"],
    "A": ["old", "green", "quiet", "small"],
    "N1": ["cat", "river", "teacher", "machine"],
    "Ns": ["cats", "rivers", "teachers", "machines"],
    "Vi1": ["sleeps", "waits", "sings"],
    "Vis": ["sleep", "wait", "sing"],
    "Vt1": ["sees", "follows", "hears"],
    "Vts": ["see", "follow", "hear"],
}
"""A small English in which subject and verb agree."""


class GrammarTextConfig(GeneratorConfig):
    """Options of GrammarText."""

    grammar: dict[str, tuple[str, ...]] = Field(
        ENGLISH,
        validate_default=True,
        description="alternatives of each symbol, equally likely, as words and symbols between blanks",
    )
    start: str = Field("S", description="the symbol of a sentence")
    sentences: int = Field(5, gt=0, le=2**16, description="per sample")

    @field_validator("grammar", mode="before")
    @classmethod
    def _tuples(cls, value: object) -> object:
        return (
            {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()} if isinstance(value, dict) else value
        )

    @model_validator(mode="after")
    def _ends(self) -> GrammarTextConfig:
        if self.start not in self.grammar:
            raise ValueError(f"the grammar has no symbol {self.start!r}: start with one of {', '.join(self.grammar)}")
        for symbol, alternatives in self.grammar.items():
            if not alternatives:
                raise ValueError(f"symbol {symbol!r} has no alternative")
        growth = float(np.abs(np.linalg.eigvals(_offspring(self.grammar))).max())
        if growth >= 1:
            raise ValueError(
                f"sentences of this grammar need not end (each symbol leads to {growth:.2f} others in the long run): "
                "give recursive symbols more alternatives without recursion"
            )
        return self


class GrammarText(Generator[GrammarTextConfig]):
    """`text` (str): sentences derived from `start`, every alternative of a symbol equally likely, joined by newlines.

    The expected number of symbols that a symbol leads to is below one, so every sentence ends (Booth and Thompson,
    1973); grammars for which it is not are refused.

    >>> from helix_core import create
    >>> sample = create("generator", "grammar-text", sentences=1).sample(0, 0)
    >>> sample["text"]
    'the green cats hear the green rivers .'
    """

    def schema(self) -> dict[str, FieldSpec]:
        return {"text": FieldSpec("str", (), "sentences, a line each")}

    def draw(self, rng: np.random.Generator, world: None) -> Sample:
        return {"text": "\n".join(self._sentence(rng) for _ in range(self.config.sentences))}

    def _sentence(self, rng: np.random.Generator) -> str:
        grammar, words, stack = self.config.grammar, [], [self.config.start]
        while stack:
            symbol = stack.pop()
            if symbol in grammar:
                alternatives = grammar[symbol]
                stack += reversed(alternatives[int(rng.random() * len(alternatives))].split())
            else:
                words.append(symbol)
        return " ".join(words)


def _offspring(grammar: dict[str, tuple[str, ...]]) -> np.ndarray:
    """The expected number of symbols of each kind that each symbol is rewritten into."""
    names = {name: i for i, name in enumerate(grammar)}
    counts = np.zeros((len(names), len(names)))
    for name, alternatives in grammar.items():
        for word in " ".join(alternatives).split():
            if word in names:
                counts[names[name], names[word]] += 1 / len(alternatives)
    return counts


def expected_words(grammar: dict[str, tuple[str, ...]], start: str) -> dict[str, float]:
    """How often each word stands in a sentence on average."""
    visits = np.linalg.solve(
        (np.eye(len(grammar)) - _offspring(grammar)).T, np.eye(len(grammar))[list(grammar).index(start)]
    )
    expected: dict[str, float] = {}
    for (_, alternatives), times in zip(grammar.items(), visits, strict=True):
        for word in " ".join(alternatives).split():
            if word not in grammar:
                expected[word] = expected.get(word, 0.0) + times / len(alternatives)
    return expected
