"""The long convolution as an op, and the Hyena operator around it."""

import math

from side_by_side.row import TUNED, Limit, Row, Side


def limit(shape: list[int], what: str) -> Limit:
    """Transforms of L complex points, 4 L log2 L operations each: two a row, one of a new filter; three a row and one
    for the filter's gradient in the backward pass. Arrays are read or written once.
    """
    B, L, D = shape
    transforms = {"cached": 2 * B, "fresh": 2 * B + 1, "train": 5 * B + 2}[what]
    arrays = {"cached": 2, "fresh": 2, "train": 5}[what]
    return Limit(flops=transforms * D * 4 * L * math.log2(L), bytes=4 * arrays * B * L * D)


WORDS = {"cached": "filter kept", "fresh": "new filter", "train": "forward + backward"}


def row(shape: list[int], what: str, same: float | None, last: float | None, limit_target: float | None = None) -> Row:
    targets = {"torch.fft, its own layout": same, "torch.fft, channels last": last}
    layouts = {"torch.fft, its own layout": "same", "torch.fft, channels last": "last"}
    return Row(
        f"long_conv {tuple(shape)}, {WORDS[what]}",
        ours=Side("peers.long_conv_helix:op", {"shape": shape, "what": what}),
        peers={
            name: Side("peers.long_conv_torch:op", {"shape": shape, "what": what, "layout": layout}, TUNED)
            for name, layout in layouts.items()
        },
        targets={name: target for name, target in targets.items() if target is not None},
        limit=limit(shape, what),
        limit_target=limit_target,
    )


def hyena(shape: list[int]) -> Row:
    return Row(
        f"Hyena operator, forward {tuple(shape)}",
        ours=Side("peers.hyena_helix:operator", {"shape": shape}),
        peers={"safari": Side("peers.hyena_torch:operator", {"shape": shape}, TUNED)},
        targets={"safari": 3},
    )


ROWS = [
    row([4, 1024, 256], "cached", 2.5, 4),
    row([4, 4096, 256], "cached", 2.5, 4, limit_target=0.45),
    row([2, 16384, 256], "cached", 2.5, 4),
    row([2, 65536, 128], "cached", 2.5, 4),
    row([1, 1048576, 64], "cached", 1.7, None),
    row([4, 4096, 256], "fresh", 2.5, 4),
    row([4, 4096, 256], "train", 2.5, 4),
    hyena([2, 1024, 256]),
    hyena([2, 4096, 256]),
    hyena([1, 16384, 256]),
]
