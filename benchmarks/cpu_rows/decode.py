"""Decoding and reading a prompt with a Mamba of 129 M parameters (24 layers of 768, 50280 tokens), random weights.

llama.cpp takes part where HELIX_LLAMA_BENCH names its `llama-bench` and HELIX_LLAMA_MODELS a folder with
`mamba-130m-f32.gguf`, `-bf16` and `-q8_0`, made by its own converter from a checkpoint of that shape.
"""

from side_by_side.row import TUNED, Limit, Row, Side

TOKENS = 8
"""Tokens of a sample, from the initial state on."""

BYTES = {"float32": 513e6, "bfloat16": 258e6, "int8": 139e6}
"""Of the weights that a token reads."""

LLAMA = {"float32": "f32", "bfloat16": "bf16", "int8": "q8_0"}


def decode(weights: str, target: float, limit_target: float | None = None) -> Row:
    return Row(
        f"Mamba 130 M, decode {TOKENS} tokens, {weights} weights",
        ours=Side("peers.decode_helix:decode", {"weights": weights, "batch": 1, "tokens": TOKENS}),
        peers={
            "llama.cpp": Side(
                "peers.decode_llama:decode", {"file": LLAMA[weights], "tokens": TOKENS}, check=False, once=True
            )
        },
        targets={"llama.cpp": target},
        limit=Limit(bytes=TOKENS * BYTES[weights]),
        limit_target=limit_target,
    )


ROWS = [
    decode("float32", 1.1, 0.9),
    decode("bfloat16", 1.3),
    decode("int8", 1.1),
    Row(
        f"Mamba 130 M, decode {TOKENS} tokens of 8 rows",
        ours=Side("peers.decode_helix:decode", {"weights": "float32", "batch": 8, "tokens": TOKENS}),
        peers={"torch": Side("peers.decode_torch:decode", {"batch": 8, "tokens": TOKENS}, TUNED)},
        targets={"torch": 1.3},
        limit=Limit(bytes=TOKENS * BYTES["float32"]),
    ),
    Row(
        "Mamba 130 M, p95 of a token's latency",
        ours=Side("peers.decode_helix:latency", {"weights": "float32"}, check=False, once=True),
        peers={"torch": Side("peers.decode_torch:latency", {}, TUNED, check=False, once=True)},
        targets={"torch": 1.3},
    ),
    Row(
        "Mamba 130 M, prefill (1, 512)",
        ours=Side("peers.decode_helix:prefill", {"length": 512}),
        peers={"llama.cpp": Side("peers.decode_llama:prefill", {"length": 512}, check=False, once=True)},
        targets={"llama.cpp": 2},
        limit=Limit(flops=512 * 2 * 90.5e6),
    ),
]
