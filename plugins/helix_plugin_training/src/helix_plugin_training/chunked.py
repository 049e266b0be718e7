"""Gradients over sequences longer than memory: the sequence goes through the model in chunks, and comes back in chunks.

A recurrent model's past reaches its future through the state alone. So the forward pass keeps the states between
chunks and nothing else; the backward pass takes the chunks from last to first, computes each again from the state in
front of it, and hands the gradient of that state to the chunk before. The gradient is that of the whole sequence,
nothing is cut off. Memory grows with the chunk, time by one forward pass.

Source: Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016, along time instead of depth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from helix_core.ops.dropout import fold
from helix_core.tree import tree_items, tree_map
from helix_plugin_lm.models import LanguageModel
from helix_plugin_training.state_stack import StateStack

if TYPE_CHECKING:
    from helix_core.kinds.backend import Backend
    from helix_core.ops.table import OpTable

Array = Any
STATE = "state:"
"""What names the arrays of a state among the parameters, where gradients flow into them."""


def chunked_value_and_grad(
    backend: Backend, model: LanguageModel, F: OpTable, F_infer: OpTable, chunk: int
) -> Callable[..., tuple[Array, dict[str, Array]]]:
    """`(params, tokens, targets, reset, weights, key) -> (loss, gradient by name)`, with the memory of `chunk` steps.

    All (B, L), reset and weights or None; key (1,) or None, of which every chunk makes one of its own.
    Equal to the gradient of `helix_plugin_lm.models.loss` but for rounding.
    F is bound for training, F_infer for inference.
    """
    return _Chunked(backend, model, F, F_infer, chunk)


class _Chunk(NamedTuple):
    """Steps of a batch that go through the model at once; `share` is their part of all its steps."""

    tokens: Array
    targets: Array
    reset: Array | None
    weights: Array | None
    key: Array | None
    share: float


class _Chunked:
    """The whole pass: forward over the chunks, back from the last to the first."""

    def __init__(self, backend: Backend, model: LanguageModel, F: OpTable, F_infer: OpTable, size: int) -> None:
        self.backend, self.model, self.F, self.F_infer, self.size = backend, model, F, F_infer, size
        self._gradient = backend.value_and_grad(self._objective)

    def __call__(
        self,
        params: Mapping[str, Array],
        tokens: Array,
        targets: Array,
        reset: Array | None = None,
        weights: Array | None = None,
        key: Array | None = None,
    ) -> tuple[Array, dict[str, Array]]:
        """Keep the state before every chunk on the way forward; compute each chunk again on the way back."""
        chunks = self._chunks(tokens, targets, reset, weights, key)
        states = StateStack(self.backend, self.F_infer.xp, len(chunks))
        with self.backend.inference():
            state: Any = self.model.init_state(self.F_infer, tokens.shape[0])
            value: Array = 0.0
            for chunk in chunks:
                states.push(state)
                loss, state = self._loss(self.F_infer, params, chunk, state)
                value = value + loss
        cotangents: list[Array | None] = [None for _ in tree_items(state)]  # nothing follows the last chunk
        total: dict[str, Array] = {}
        for chunk in reversed(chunks):
            before = states.pop()
            leaves = {f"{STATE}{name}": leaf for name, leaf in tree_items(before) if self._differentiable(leaf)}
            _, grads = self._gradient({**params, **leaves}, chunk, before, cotangents)
            cotangents = [grads.get(f"{STATE}{name}") for name, _ in tree_items(before)]
            with self.backend.inference():
                total = {name: total[name] + grads[name] if total else grads[name] for name in params}
        return value, total

    def _chunks(
        self, tokens: Array, targets: Array, reset: Array | None, weights: Array | None, key: Array | None
    ) -> list[_Chunk]:
        length = tokens.shape[1]

        def chunk(start: int) -> _Chunk:
            steps = slice(start, start + self.size)
            return _Chunk(
                tokens=tokens[:, steps],
                targets=targets[:, steps],
                reset=None if reset is None else reset[:, steps],
                weights=None if weights is None else weights[:, steps],
                key=None if key is None else fold(self.F.xp, key, start),
                share=min(self.size, length - start) / length,
            )

        return [chunk(start) for start in range(0, length, self.size)]

    def _loss(self, F: OpTable, params: Mapping[str, Array], chunk: _Chunk, state: Any) -> tuple[Array, Any]:
        """A chunk's part of `helix_plugin_lm.models.loss`, and the state after it."""
        losses: list[Array] = []
        x, after = self.model.features(
            F, params, chunk.tokens, state=state, reset=chunk.reset, key=chunk.key, losses=losses
        )
        nats, extra = self.model.nats(F, params, x, chunk.targets), sum(losses)
        if chunk.weights is None:
            return (F.xp.mean(nats) + extra) * chunk.share, after
        return F.xp.sum(nats * chunk.weights) + extra * F.xp.sum(chunk.weights), after

    def _objective(
        self, leaves: Mapping[str, Array], chunk: _Chunk, before: Any, cotangents: list[Array | None]
    ) -> Array:
        """A chunk's loss, and the state after it times the gradient that the chunks behind it gave that state."""
        value, after = self._loss(self.F, leaves, chunk, _with_leaves(before, leaves))
        for (_, leaf), cotangent in zip(tree_items(after), cotangents, strict=True):
            if cotangent is not None:
                value = value + self.F.xp.sum(leaf * cotangent)
        return value

    def _differentiable(self, leaf: Array) -> bool:
        return bool(self.F.xp.isdtype(leaf.dtype, "real floating"))


def _with_leaves(structure: Any, leaves: Mapping[str, Array]) -> Any:
    """The state of `structure`, with the leaves that gradients flow into taken from `leaves`."""
    names = iter([name for name, _ in tree_items(structure)])

    def leaf(constant: Array) -> Array:
        return leaves.get(f"{STATE}{next(names)}", constant)

    return tree_map(leaf, structure)
