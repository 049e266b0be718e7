"""The decoder of the CPU backend: a recorded step, its state and its logits."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from helix_core.errors import ComponentUnavailable
from helix_core.events import emit
from helix_core.kinds.decoder import WEIGHTS, Decoder, PlainDecoder
from helix_core.tree import tree_items, tree_map
from helix_plugin_cpu.decode.lower import LOWER
from helix_plugin_cpu.decode.lower_arrays import pointwise
from helix_plugin_cpu.decode.program import Call, Program, overlap
from helix_plugin_cpu.decode.record import Recorded, Recorder, RecordingTable, Stale, Unrecordable
from helix_plugin_cpu.kernels._arguments import address, zeros

if TYPE_CHECKING:
    from helix_core.kinds.decoder import DecodableModel


class RecordedDecoder(Decoder):
    """Runs a model's step as one native program (see `decode/record.py`). Raises Unrecordable if it cannot.

    python_calls  names of the ops that the program calls from Python, between native parts
    weight_bytes  bytes of the matrices that it reads
    """

    def __init__(
        self, model: DecodableModel, backend: Any, F: Any, params: Mapping[str, Any], batch: int, weights: str
    ) -> None:
        super().__init__(batch, weights, model.vocab_size)
        self._lock = threading.Lock()
        self._model, self._F = model, F
        with torch.no_grad():
            try:
                self._record(model, backend, F, params, in_place=True)
            except Stale:
                self._record(model, backend, F, params, in_place=False)

    def _record(self, model: DecodableModel, backend: Any, F: Any, params: Mapping[str, Any], in_place: bool) -> None:
        recorder = Recorder(backend.xp, F, lower=LOWER, batch=self.batch, weights=self.weights, in_place=in_place)
        self._tokens = zeros(self.batch, 1, dtype=torch.int64)
        recorder.tokens = address(self._tokens)
        self._initial = model.init_state(F, self.batch)
        self._state = tree_map(lambda a: a.clone().contiguous(), self._initial)
        leaves: list[Tensor] = _leaves(self._state)
        recorder.states = {leaf.data_ptr() for leaf in leaves if leaf.numel()}
        logits, after = model.apply(
            RecordingTable(recorder),  # type: ignore[arg-type]
            params,
            recorder.array(self._tokens),
            state=tree_map(recorder.array, self._state),
        )
        if not isinstance(logits, Recorded):
            raise Unrecordable("its logits do not depend on its tokens")
        _update(recorder, leaves, _leaves(after))
        self._logits = logits.value
        # Held, so that its memory is not used for anything else.
        self._held = (logits, after)
        self.python_calls = tuple(step.name for step in recorder.steps if isinstance(step, Call))
        self.weight_bytes = sum(weight.data.nbytes for weight in recorder.stored.values())
        self._program = Program(recorder.steps, recorder.scratch, [*recorder.keep, self._tokens, *leaves])
        self.load(self._initial)

    def step(self, tokens: np.ndarray) -> np.ndarray:
        checked = self._checked(tokens)
        with self._lock, torch.no_grad():
            if self._room is not None:
                if self._room < 1:
                    raise self._full()
                self._room -= 1
            self._tokens.copy_(torch.from_numpy(checked)[:, None])
            self._program.run()
            logits: np.ndarray = self._logits.reshape(self.batch, -1).float().numpy().copy()
        return logits

    def load(self, state: Any) -> None:
        with self._lock, torch.no_grad():
            tree_map(lambda mine, theirs: mine.copy_(theirs), self._state, state)
            self._room = self._model.room(self._F, state)

    def state(self) -> Any:
        with self._lock:
            return tree_map(torch.clone, self._state)


def decoder(
    model: DecodableModel, backend: Any, F: Any, params: Mapping[str, Any], batch: int, weights: str
) -> Decoder:
    """A recorded decoder, or the plain one where the step cannot be recorded; an event "decoder" says which and why.

    Raises ComponentUnavailable for weights in a format that is unknown, or that only a recorded step reads.
    """
    if weights not in WEIGHTS:
        raise ComponentUnavailable(
            f"backend {backend.name!r} does not decode with {weights} weights",
            hint=f"it does with {', '.join(WEIGHTS)}",
        )
    if F.dispatch_key.dtype != "float32":
        reason = f"the native step computes in float32, not {F.dispatch_key.dtype}"
    else:
        try:
            recorded = RecordedDecoder(model, backend, F, params, batch, weights)
        except Unrecordable as error:
            reason = str(error)
        else:
            emit("decoder", kind="recorded", weights=weights, batch=batch, python_calls=recorded.python_calls)
            return recorded
    if weights != "float32":
        raise ComponentUnavailable(
            f"this model cannot be decoded with {weights} weights: {reason}", hint="decode with float32 weights"
        )
    emit("decoder", kind="plain", weights=weights, batch=batch, reason=reason)
    return PlainDecoder(model, backend, F, params, batch)


def _leaves(tree: Any) -> list[Any]:
    return [leaf for _, leaf in tree_items(tree)]


def _update(recorder: Recorder, before: list[Tensor], after: list[Any]) -> None:
    """Copy new states over the old ones, those that are views of other old ones by way of a copy."""
    if len(before) != len(after):
        raise Unrecordable("its state changes its structure")
    moves = []
    for old, new in zip(before, after, strict=True):
        value = new.value if isinstance(new, Recorded) else new
        if value.shape != old.shape or value.dtype != old.dtype:
            raise Unrecordable("its state changes its shape or dtype")
        if value.numel() == 0 or (value.data_ptr() == old.data_ptr() and value.stride() == old.stride()):
            continue
        if any(overlap(value, other) for other in before if other.numel()):
            new = recorder.empty(tuple(value.shape), value.dtype)
            _copy(recorder, value, new.value)
        moves.append((new, old))
    for new, old in moves:
        _copy(recorder, new.value if isinstance(new, Recorded) else new, old)


def _copy(recorder: Recorder, source: Tensor, target: Tensor) -> None:
    held = Recorded(recorder, source, recorder.array(source).memory)
    if target.dtype != torch.float32 or pointwise(recorder, "copy", held, out=target) is None:
        recorder.keep.append(recorder.constant(source))
        recorder.steps.append(Call("copy", torch.clone, (source,), {}, [target]))
