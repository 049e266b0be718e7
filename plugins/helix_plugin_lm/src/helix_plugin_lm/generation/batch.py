"""Several prompts of any lengths side by side: every text is the one that it would be alone.

Prompts are read one by one, so nothing is padded; their states then stand as rows of one decoder. A row whose text has
ended takes in the next prompt. When there is none, the decoder is made narrower.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from helix_core.errors import UsageError
from helix_plugin_lm.generation.reading import check_prompt, read
from helix_plugin_lm.generation.row import Row, count
from helix_plugin_lm.generation.rows import join, take
from helix_plugin_lm.generation.sampling import Sampling
from helix_plugin_lm.generation.stopping import CONTEXT, Stopping
from helix_plugin_lm.tokenizers import BYTES, Tokenizer

if TYPE_CHECKING:
    from helix_core.kinds.backend import Backend
    from helix_core.kinds.decoder import Decoder
    from helix_core.ops.table import OpTable
    from helix_plugin_lm.models.language_model import LanguageModel


@dataclass(frozen=True)
class Continuation:
    """The text that continues a prompt, its tokens, and why it ended (see `helix_plugin_lm.generation.stopping`)."""

    text: bytes
    tokens: tuple[int, ...]
    finish: str


@dataclass
class _Place:
    """A row of the decoder and the text that is written in it."""

    index: int
    row: Row
    seat: int = -1
    position: int = 0
    text: list[bytes] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    def advance(self, logits: np.ndarray, limit: int | None) -> None:
        self.text.append(self.row.advance(logits))
        self.tokens.append(self.row.token)
        if self.row.finish is None and self.position == limit:
            self.text.append(self.row.end(CONTEXT))

    def result(self) -> Continuation:
        assert self.row.finish is not None
        return Continuation(b"".join(self.text), tuple(self.tokens), self.row.finish)


def generate_batch(
    model: LanguageModel,
    backend: Backend,
    F: OpTable,
    params: Mapping[str, Any],
    prompts: Sequence[bytes],
    *,
    sampling: Sampling | None = None,
    stopping: Stopping,
    tokenizer: Tokenizer = BYTES,
    seeds: int | Sequence[int] = 0,
    weights: str = "float32",
    width: int = 8,
) -> Iterator[Continuation]:
    """Yield the continuation of each prompt, in their order; at most `width` of them are written side by side.

    `seeds`: one for each prompt, or the first one's, which the others count on from. A text depends on its own prompt
    and seed and not on its neighbours: it is the one that `generate` writes with that seed. `stopping` needs a limit.
    Other arguments and errors are those of `generate`; a prompt that is too long is refused before any is read.
    """
    if stopping.max_tokens is None and stopping.max_bytes is None:
        raise UsageError("a batch needs max_tokens or max_bytes: other rows wait for one without end")
    if width < 1:
        raise UsageError(f"width must be at least 1, not {width}")
    seeds = range(seeds, seeds + len(prompts)) if isinstance(seeds, int) else seeds
    if len(seeds) != len(prompts):
        raise UsageError(f"{len(prompts)} prompts need as many seeds, not {len(seeds)}")
    encoded = [tokenizer.prompt(prompt) for prompt in prompts]
    for tokens in encoded:
        check_prompt(model, tokenizer, len(tokens))
    return _write(
        model, backend, F, params, encoded, sampling or Sampling(), stopping, tokenizer, seeds, weights, width
    )


def _write(
    model: LanguageModel,
    backend: Backend,
    F: OpTable,
    params: Mapping[str, Any],
    prompts: Sequence[np.ndarray],
    sampling: Sampling,
    stopping: Stopping,
    tokenizer: Tokenizer,
    seeds: Sequence[int],
    weights: str,
    width: int,
) -> Iterator[Continuation]:
    done: dict[int, Continuation] = {}
    places: list[_Place] = []
    waiting = iter(range(len(prompts)))
    decoder: Decoder | None = None
    shown = 0
    while True:
        new: list[Any] = []
        while len(places) < width and (index := next(waiting, None)) is not None:
            fed = prompts[index]
            # The token in front of a text is no part of it.
            counts = count(fed[1:] if fed[0] == tokenizer.start else fed, tokenizer.vocab_size)
            rng = np.random.default_rng(seeds[index])
            place = _Place(index, Row(tokenizer, sampling, stopping, rng, counts, prompt=fed))
            if place.row.finish is None:
                logits, state = read(model, backend, F, params, fed)
                place.position = len(fed)
                place.advance(logits, model.context)
            if place.row.finish is None:
                places.append(place)
                new.append(state)
            else:
                done[index] = place.result()
        while shown in done:
            yield done.pop(shown)
            shown += 1
        if not places:
            return
        if new or decoder is None or any(place.seat != seat for seat, place in enumerate(places)):
            states = [
                *([take(backend, decoder.state(), [p.seat for p in places[: -len(new) or None]])] if decoder else []),
                *new,
            ]
            seats = min(width, len(prompts))
            while seats // 2 >= len(places):
                seats //= 2
            if decoder is None or decoder.batch != seats:
                decoder = backend.decoder(model, F, params, batch=seats, weights=weights)
            # Idle seats do what the first one does.
            decoder.load(take(backend, join(backend.xp, states), [*range(len(places)), *[0] * (seats - len(places))]))
            for seat, place in enumerate(places):
                place.seat = seat
        tokens = [place.row.token for place in places]
        stepped = decoder.step(np.array([*tokens, *[tokens[0]] * (decoder.batch - len(places))]))
        for place, logits in zip(places, stepped, strict=False):
            place.position += 1
            place.advance(logits, model.context)
        done |= {place.index: place.result() for place in places if place.row.finish}
        places = [place for place in places if not place.row.finish]
