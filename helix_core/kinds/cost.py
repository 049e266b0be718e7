"""What a layer costs: FLOPs and bytes per token and the size of its state, beside attention of equal parameters.

A FLOP is an addition, a multiplication or an exponential of a product with weights or of what mixes steps. Work on
single numbers of the stream (activations, norms, gates) is not counted: it is small beside them. Recurrences are
counted step by step, as they are defined; chunked kernels do more FLOPs in fewer passes. What depends on parameters
alone (drawing a filter, discretizing) is done once for many tokens and is not counted either.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Per token and sequence, at one length.

    parameters     numbers that are trained
    forward_flops  FLOPs per token, all `length` tokens at once; training takes about three times as many
    step_flops     FLOPs of decoding one token after `length` others
    state_bytes    what decoding carries for one sequence
    step_bytes     what decoding one token reads and writes: the weights, shared by the batch, and the state
    """

    parameters: int
    forward_flops: float
    step_flops: float
    state_bytes: int
    step_bytes: float


def attention_cost(parameters: int, d_model: int, length: int, *, batch: int = 1, itemsize: int = 4) -> Cost:
    """Causal multi-head attention with four projections, their inner width such that it has as many parameters.

    A token sees (length + 1) / 2 others on average all at once, and all of them in decoding, from a cache of keys and
    values. The softmax is elementwise and not counted.
    """
    width = parameters / (4 * d_model)
    products, cache = 2.0 * parameters, 2 * width * length
    return Cost(
        parameters=parameters,
        forward_flops=products + 4 * width * (length + 1) / 2,
        step_flops=products + 4 * width * length,
        state_bytes=round(cache * itemsize),
        step_bytes=itemsize * (parameters / batch + cache + 2 * width),
    )
