"""Several prompts of any lengths side by side: every text is the one that it would be alone.

Prompts are read one by one, so nothing is padded; their states then stand as rows of one decoder. A row whose text has
ended takes in the next prompt. When there is none, the decoder is made narrower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
class _Text:
    """A text that is being written.

    index      of its prompt
    position   tokens that its state has taken in
    state      of one row, until the text has a row of the decoder; None from then on
    seat       that row; None before
    """

    index: int
    row: Row
    position: int = 0
    state: Any = None
    seat: int | None = None
    pieces: list[bytes] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return self.row.finish is not None

    def advance(self, logits: np.ndarray, limit: int | None) -> None:
        """Draw the next token from logits (V,), and end where the state holds `limit` tokens already."""
        self.pieces.append(self.row.advance(logits))
        self.tokens.append(self.row.token)
        if not self.ended and self.position == limit:
            self.pieces.append(self.row.end(CONTEXT))

    def result(self) -> Continuation:
        assert self.row.finish is not None
        return Continuation(b"".join(self.pieces), tuple(self.tokens), self.row.finish)


class _Seats:
    """The rows of one decoder, each with the text that is written in it. Idle rows do what the first one does."""

    def __init__(self, backend: Backend, decoder_of: Callable[[int], Decoder], most: int) -> None:
        self._backend, self._decoder_of, self._most = backend, decoder_of, most
        self._decoder: Decoder | None = None

    def give(self, texts: Sequence[_Text]) -> None:
        """Seat the texts in this order, new ones last; where half the rows would be idle, take a narrower decoder."""
        if all(text.seat == seat for seat, text in enumerate(texts)):
            return
        states = [text.state for text in texts if text.seat is None]
        if self._decoder is not None and (seated := [text.seat for text in texts if text.seat is not None]):
            states.insert(0, take(self._backend, self._decoder.state(), seated))
        size = self._most
        while size // 2 >= len(texts):
            size //= 2
        if self._decoder is None or self._decoder.batch != size:
            self._decoder = self._decoder_of(size)
        rows = [*range(len(texts)), *[0] * (size - len(texts))]
        self._decoder.load(take(self._backend, join(self._backend.xp, states), rows))
        for seat, text in enumerate(texts):
            text.seat, text.state = seat, None

    def step(self, tokens: Sequence[int]) -> np.ndarray:
        """Feed every seated text its last token: logits (rows, V) in the order of the seats."""
        assert self._decoder is not None
        idle = self._decoder.batch - len(tokens)
        return self._decoder.step(np.array([*tokens, *[tokens[0]] * idle]))


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
    sampling = sampling or Sampling()

    def begin(index: int) -> _Text:
        """Read a prompt and draw the first token of its text."""
        fed = encoded[index]
        # The token in front of a text is no part of it.
        counts = count(fed[1:] if fed[0] == tokenizer.start else fed, tokenizer.vocab_size)
        rng = np.random.default_rng(seeds[index])
        text = _Text(index, Row(tokenizer, sampling, stopping, rng, counts, prompt=fed))
        if not text.ended:
            logits, text.state = read(model, backend, F, params, fed)
            text.position = len(fed)
            text.advance(logits, model.context)
        return text

    def decoder_of(rows: int) -> Decoder:
        return backend.decoder(model, F, params, batch=rows, weights=weights)

    seats = _Seats(backend, decoder_of, min(width, len(prompts)))
    return _write(map(begin, range(len(prompts))), seats, width, model.context)


def _write(begun: Iterator[_Text], seats: _Seats, width: int, limit: int | None) -> Iterator[Continuation]:
    """Write the texts that `begun` gives, `width` at a time, and yield each once all before it have been."""
    going: list[_Text] = []
    ended: list[_Text] = []
    done: dict[int, Continuation] = {}
    shown = 0
    while True:
        while len(going) < width and (text := next(begun, None)) is not None:
            (ended if text.ended else going).append(text)
        done |= {text.index: text.result() for text in ended}
        while shown in done:
            yield done.pop(shown)
            shown += 1
        if not going:
            return
        seats.give(going)
        stepped = seats.step([text.row.token for text in going])
        for text, logits in zip(going, stepped, strict=False):
            text.position += 1
            text.advance(logits, limit)
        ended = [text for text in going if text.ended]
        going = [text for text in going if not text.ended]
