"""The head and the loss of a language model, forward and backward: rows, d_model, vocabulary."""

from side_by_side.row import TUNED, Limit, Row, Side


def row(shape: list[int], memory: dict[str, float]) -> Row:
    rows, width, classes = shape
    return Row(
        f"head and loss, forward + backward {tuple(shape)}",
        ours=Side("peers.head:work", {"shape": shape, "how": "ours"}),
        peers={
            "torch": Side("peers.head:work", {"shape": shape, "how": "torch"}, TUNED),
            "two ops of ours": Side("peers.head:work", {"shape": shape, "how": "two ops"}),
        },
        targets={"torch": 1, "two ops of ours": 0.95},
        memory=memory,
        limit=Limit(flops=6.0 * rows * width * classes),
    )


ROWS = [
    row([4096, 192, 256], {}),
    row([65536, 192, 256], {}),
    row([4096, 256, 32000], {"torch": 8, "two ops of ours": 8}),
]
