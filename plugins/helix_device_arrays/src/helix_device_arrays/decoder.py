"""Decoding: the programs of one step are recorded once, and run again for every token."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from helix_core.kinds.decoder import PlainDecoder
from helix_core.tree import tree_items, tree_map
from helix_device_arrays.array import Array
from helix_device_arrays.device import Buffer, Device
from helix_device_arrays.dtypes import int32
from helix_device_arrays.evaluate import copied, write
from helix_device_arrays.nodes import Leaf
from helix_device_arrays.views import View

if TYPE_CHECKING:
    from helix_core.kinds.backend import Backend, Params
    from helix_core.kinds.decoder import DecodableModel
    from helix_core.ops import OpTable


class RecordedDecoder(PlainDecoder):
    """Steps without Python's part of the work: every buffer of a step is its own, and the state stays where it is.

    A model that looks at numbers on the way (attention asks whether a document still fits) cannot be recorded; it
    is decoded as it stands.
    """

    def __init__(self, model: DecodableModel, backend: Backend, F: OpTable, params: Params, batch: int) -> None:
        super().__init__(model, backend, F, params, batch)
        self._device: Device = F.xp.device
        self._recording: _Recording | None = None
        self._plain = False

    def step(self, tokens: np.ndarray) -> np.ndarray:
        if not self._plain and self._recording is None:
            self._recording = _Recording.of(self._device, self._advance, self._state, self.batch)
            self._plain = self._recording is None
        if self._recording is None:
            return super().step(tokens)
        return self._recording.step(self._checked(tokens))

    def _advance(self, tokens: Array, state: Any) -> tuple[Array, Any]:
        logits, after = self._model.apply(self._F, self._params, tokens, state=state)
        return logits[:, -1], after

    def load(self, state: Any) -> None:
        if self._recording is None or not self._recording.load(state):
            self._recording, self._state = None, state

    def state(self) -> Any:
        return self._state if self._recording is None else self._recording.state()


class _Recording:
    """The programs of a step, from a buffer of tokens and those of the state to those of the logits and the state."""

    def __init__(
        self, device: Device, tokens: Buffer, state: Any, logits: Leaf, programs: list[Callable[[], None]], kept: Any
    ) -> None:
        self._device, self._tokens, self._state, self._logits = device, tokens, state, logits
        self._programs, self._kept = programs, kept

    @classmethod
    def of(
        cls, device: Device, advance: Callable[[Array, Any], tuple[Array, Any]], state: Any, batch: int
    ) -> _Recording | None:
        """Record a step from a copy of `state`; None where it moves data to or from the device on its way."""
        held = tree_map(lambda a: Array(device, copied(device, a.node)), state)
        tokens = Array(device, Leaf(device.upload(np.zeros((batch, 1), np.int32)), View.of((batch, 1)), int32))
        advance(tokens, held)  # what layers make once, tables and programs, is made before
        before = device.traffic.snapshot()
        device.record = []
        try:
            logits, after = advance(tokens, held)
            logits_leaf = copied(device, logits.node)
            fresh = [copied(device, a.node) for _, a in tree_items(after)]
            for (_, old), new in zip(tree_items(held), fresh, strict=True):
                write(device, new, old.leaf())
            calls = device.record
        finally:
            device.record = None
        moved = device.traffic.snapshot()
        if any(moved[name] != before[name] for name in ("uploads", "downloads")):
            return None
        # The copy of the state has gone on by one step.
        for (_, old), (_, given) in zip(tree_items(held), tree_items(state), strict=True):
            write(device, given.node, old.leaf())
        programs = [device.prepared(*call) for call in calls]
        return cls(device, tokens.leaf().buffer, held, logits_leaf, programs, calls)

    def step(self, tokens: np.ndarray) -> np.ndarray:
        device = self._device
        device.overwrite(self._tokens, np.ascontiguousarray(tokens[:, None], np.int32))
        for run in self._programs:
            run()
        device.traffic.launches += len(self._programs)
        return device.download(self._logits.buffer, np.empty(self._logits.shape, np.float32))

    def load(self, state: Any) -> bool:
        """Copy a state in; False if it is not of this shape."""
        own, given = list(tree_items(self._state)), list(tree_items(state))
        same = [(n, a.shape, a.dtype) for n, a in own] == [(n, a.shape, getattr(a, "dtype", None)) for n, a in given]
        if not same:
            return False
        # First all copies: a new row may come from an old one.
        copies = [copied(self._device, a.node) for _, a in given]
        for (_, old), new in zip(own, copies, strict=True):
            write(self._device, new, old.leaf())
        return True

    def state(self) -> Any:
        return tree_map(lambda a: Array(self._device, copied(self._device, a.node)), self._state)
