"""Gradients over sequences longer than memory: the sequence goes through the model in chunks, and comes back in chunks.

A recurrent model's past reaches its future through the state alone. So the forward pass keeps the states between
chunks and nothing else; the backward pass takes the chunks from last to first, computes each again from the state in
front of it, and hands the gradient of that state to the chunk before. The gradient is that of the whole sequence,
nothing is cut off. Memory grows with the chunk, time by one forward pass.

Source: Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016, along time instead of depth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from helix_core.ops.dropout import fold
from helix_core.tree import tree_items, tree_map
from helix_plugin_lm.models import LanguageModel
from helix_plugin_training.state_stack import StateStack

if TYPE_CHECKING:
    from helix_core.kinds.backend import Backend
    from helix_core.ops.table import OpTable

Array = Any
STATE = "state:"


def chunked_value_and_grad(
    backend: Backend, model: LanguageModel, F: OpTable, F_infer: OpTable, chunk: int
) -> Callable[..., tuple[Array, dict[str, Array]]]:
    """`(params, tokens, targets, reset, weights, key) -> (loss, gradient by name)`, with the memory of `chunk` steps.

    All (B, L), reset and weights or None; key (1,) or None, of which every chunk makes one of its own.
    Equal to the gradient of `helix_plugin_lm.models.loss` but for rounding.
    F is bound for training, F_infer for inference.
    """

    def part(array: Array | None, start: int) -> Array | None:
        return None if array is None else array[:, start : start + chunk]

    def step(
        leaves: Mapping[str, Array],
        structure: Any,
        pull: list[Array | None],
        share: float,
        key: Any,
        *rows: Array | None,
    ) -> Array:
        """A chunk's share of the loss, plus what its last state adds to the loss of the chunks behind it."""
        tokens, targets, reset, weights = rows
        state = _with_leaves(structure, leaves)
        losses: list[Array] = []
        x, after = model.features(F, leaves, tokens, state=state, reset=reset, key=key, losses=losses)
        value = _share_of_loss(F, model.nats(F, leaves, x, targets), weights, share, losses)
        for (_, leaf), grad in zip(tree_items(after), pull, strict=True):
            if grad is not None:
                value = value + F.xp.sum(leaf * grad)
        return value

    gradient = backend.value_and_grad(step)

    def run(
        params: Mapping[str, Array],
        tokens: Array,
        targets: Array,
        reset: Array | None = None,
        weights: Array | None = None,
        key: Array | None = None,
    ) -> tuple[Array, dict[str, Array]]:
        length = tokens.shape[1]
        starts = range(0, length, chunk)
        losses: list[Array]
        with backend.inference():
            states = StateStack(backend, F_infer.xp, len(starts))
            state: Any = model.init_state(F_infer, tokens.shape[0])
            value: Array = 0.0
            for start in starts:
                states.push(state)
                losses = []
                x, state = model.features(
                    F_infer,
                    params,
                    part(tokens, start),
                    state=state,
                    reset=part(reset, start),
                    key=None if key is None else fold(F.xp, key, start),
                    losses=losses,
                )
                nats = model.nats(F_infer, params, x, part(targets, start))
                value = value + _share_of_loss(F_infer, nats, part(weights, start), x.shape[1] / length, losses)
        pull: list[Array | None] = [None for _ in tree_items(state)]
        total: dict[str, Array] = {}
        for start in reversed(starts):
            before = states.pop()
            moving = {f"{STATE}{name}": leaf for name, leaf in tree_items(before) if _floating(F.xp, leaf)}
            rows = tuple(part(array, start) for array in (tokens, targets, reset, weights))
            share = rows[0].shape[1] / length  # type: ignore[union-attr]
            _, grads = gradient(
                {**params, **moving}, before, pull, share, None if key is None else fold(F.xp, key, start), *rows
            )
            pull = [grads.get(f"{STATE}{name}") for name, _ in tree_items(before)]
            with backend.inference():
                total = {name: total[name] + grads[name] if total else grads[name] for name in params}
        return value, total

    return run


def _share_of_loss(F: OpTable, nats: Array, weights: Array | None, share: float, losses: list[Array]) -> Array:
    """As `helix_plugin_lm.models.loss`, for a chunk that is a share of the row."""
    extra = sum(losses)
    if weights is None:
        return (F.xp.mean(nats) + extra) * share
    return F.xp.sum(nats * weights) + extra * F.xp.sum(weights)


def _with_leaves(structure: Any, leaves: Mapping[str, Array]) -> Any:
    """The state of `structure`, with the leaves that gradients flow into taken from `leaves`."""
    names = iter([name for name, _ in tree_items(structure)])

    def leaf(constant: Array) -> Array:
        return leaves.get(f"{STATE}{next(names)}", constant)

    return tree_map(leaf, structure)


def _floating(xp: Any, leaf: Array) -> bool:
    return bool(xp.isdtype(leaf.dtype, "real floating"))
