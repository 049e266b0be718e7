"""Beam search: the likeliest continuations, found by keeping the best few at every length."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from helix_core.errors import UsageError
from helix_core.machine import require_memory
from helix_plugin_lm.generation.reading import check_prompt, read
from helix_plugin_lm.generation.rows import take
from helix_plugin_lm.generation.sampling import Sampling
from helix_plugin_lm.generation.stopping import CONTEXT, LENGTH, STOP_STRING, STOP_TOKEN, Stopping, StopScanner
from helix_plugin_lm.tokenizers import BYTES, Tokenizer

if TYPE_CHECKING:
    from helix_core.kinds.backend import Backend
    from helix_core.ops.table import OpTable
    from helix_plugin_lm.models.language_model import LanguageModel


@dataclass(frozen=True)
class Beam:
    """A continuation: log_probability of its tokens in nats, a stop token included; score = that / length**penalty."""

    text: bytes
    tokens: tuple[int, ...]
    log_probability: float
    score: float
    finish: str


def beam_search(
    model: LanguageModel,
    backend: Backend,
    F: OpTable,
    params: Mapping[str, Any],
    prompt: bytes = b"",
    *,
    num_beams: int,
    stopping: Stopping,
    length_penalty: float = 1.0,
    tokenizer: Tokenizer = BYTES,
    weights: str = "float32",
) -> list[Beam]:
    """At most `num_beams` continuations, the best first; no chance is involved.

    A continuation scores log p / length**length_penalty (0: log p itself; above 0 favours long ones), its length
    counted in tokens with the stop token. One that ends leaves the beam, and the beam stays full. The search is over
    when nothing in it can still reach the best `num_beams` that have ended, or at `stopping.max_tokens`, which is
    needed. With as many beams as there are continuations it is exhaustive.

    Raises UsageError for settings without meaning and for a prompt longer than the model's context, ConfigError for the
    tokenizer of another model, GenerationError for logits that are not finite.
    """
    if num_beams < 1:
        raise UsageError(f"num_beams must be at least 1, not {num_beams}")
    if not math.isfinite(length_penalty):
        raise UsageError(f"length_penalty must be a finite number, not {length_penalty}")
    if stopping.max_tokens is None or stopping.max_bytes is not None:
        raise UsageError("beam search is limited by max_tokens, and by nothing else")
    fed = tokenizer.prompt(prompt)
    check_prompt(model, tokenizer, len(fed))
    needed = num_beams * (model.state_bytes + 4 * model.config.vocab_size)  # float32 logits
    require_memory(needed, backend.memory(), f"a search with {num_beams:,} beams", hint="take fewer beams")
    room = math.inf if model.context is None else model.context - len(fed) + 1
    steps = int(min(stopping.max_tokens, room))
    if steps == 0:
        return [Beam(b"", (), 0.0, 0.0, LENGTH)]

    logits, state = read(model, backend, F, params, fed)
    stream = tokenizer.stream()
    stream.read(fed)

    def text_of(tokens: tuple[int, ...]) -> bytes:
        return tokenizer.decode(tokens, stream.state())

    decoder = backend.decoder(model, F, params, batch=num_beams, weights=weights)
    decoder.load(take(backend, state, [0] * num_beams))
    live = [_Path((), 0.0)]
    ended: list[Beam] = []
    rows = logits[None]
    for length in range(1, steps + 1):
        live, origins = _extend(live, rows, num_beams, ended, stopping, length_penalty, text_of, tokenizer.vocab_size)
        ended = sorted(ended, key=lambda beam: -beam.score)[:num_beams]
        if length == steps or not live or _settled(live, ended, num_beams, length, steps, length_penalty):
            break
        idle = num_beams - len(live)
        if (order := [*origins, *[0] * idle]) != list(range(num_beams)):
            decoder.reorder(order)
        rows = decoder.step(np.array([*(path.tokens[-1] for path in live), *[0] * idle]))
    if length == steps:
        finish = LENGTH if steps == stopping.max_tokens else CONTEXT
        ended += [_beam(text_of(path.tokens), path, length_penalty, finish) for path in live]
    return sorted(ended, key=lambda beam: -beam.score)[:num_beams]


@dataclass(frozen=True)
class _Path:
    tokens: tuple[int, ...]
    log_probability: float


def _extend(
    live: list[_Path],
    logits: np.ndarray,
    num_beams: int,
    ended: list[Beam],
    stopping: Stopping,
    penalty: float,
    text_of: Callable[[tuple[int, ...]], bytes],
    vocab_size: int,
) -> tuple[list[_Path], list[int]]:
    """The best paths that go on, and which row each came from; those that end here go to `ended`."""
    scores = np.stack([_log_softmax(row[:vocab_size]) for row in logits[: len(live)]])
    scores += np.array([path.log_probability for path in live])[:, None]
    following: list[_Path] = []
    origins: list[int] = []
    # Equals in the order of their rows, then of their tokens.
    for at in np.argsort(-scores, axis=None, kind="stable"):
        if len(following) == num_beams:
            break
        origin, token = divmod(int(at), scores.shape[1])
        log_probability = float(scores[origin, token])
        if log_probability == -math.inf:
            break
        path = _Path((*live[origin].tokens, token), log_probability)
        if token in stopping.tokens:
            ended.append(_beam(text_of(path.tokens[:-1]), path, penalty, STOP_TOKEN))
        elif stopping.strings and (before := _before_stop(text_of(path.tokens), stopping)) is not None:
            ended.append(_beam(before, path, penalty, STOP_STRING))
        else:
            following.append(path)
            origins.append(origin)
    return following, origins


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    scores = Sampling().scores(logits)
    scores -= scores.max()
    result: np.ndarray = scores - np.log(np.exp(scores).sum())
    return result


def _before_stop(text: bytes, stopping: Stopping) -> bytes | None:
    before, stopped = StopScanner(stopping.strings).feed(text)
    return before if stopped else None


def _beam(text: bytes, path: _Path, penalty: float, finish: str) -> Beam:
    score = path.log_probability / len(path.tokens) ** penalty
    return Beam(text, path.tokens, path.log_probability, score, finish)


def _settled(live: list[_Path], ended: list[Beam], num_beams: int, length: int, steps: int, penalty: float) -> bool:
    """Whether nothing that goes on can reach the worst of `num_beams` that have ended."""
    if len(ended) < num_beams:
        return False
    # log p only falls from here; a positive penalty divides it by the most at the end, another by the least at once.
    at_best = steps if penalty > 0 else length + 1
    return bool(live[0].log_probability / at_best**penalty <= ended[-1].score)
