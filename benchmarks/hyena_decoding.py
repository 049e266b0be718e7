"""A step of decoding in microseconds: Hyena's exact sum over its history beside distilled filters of 16 modes.

One layer, batch 1, one thread, the best of four runs of twenty steps; all rows in one process. `python
benchmarks/hyena_decoding.py`
"""

import time

import torch

import helix_core
from helix_core.layers import init_params

D_MODEL, MODES, STEPS = 192, 16, 20


def microseconds(name: str, **options: int) -> float:
    """The time of one step on backend `cpu`."""
    backend = helix_core.create("backend", "cpu")
    F = backend.bind(mode="infer")
    layer = helix_core.create("layer", name, d_model=D_MODEL, **options)
    p = {k: backend.asarray(v, "float32") for k, v in init_params(layer.params(), 0).items()}
    x = torch.randn(1, 1, D_MODEL)
    best = float("inf")
    with backend.inference():
        state = layer.init_state(F, 1)
        for _ in range(4):
            begin = time.perf_counter()
            for _ in range(STEPS):
                _, state = layer.apply(F, p, x, state=state)
            best = min(best, (time.perf_counter() - begin) / STEPS)
    return best * 1e6


if __name__ == "__main__":
    torch.set_num_threads(1)
    recurrent = microseconds("hyena_recurrent", modes=MODES)
    print(f"hyena_recurrent, {MODES} modes: {recurrent:.0f}")
    for l_max in (1024, 8192, 65536):
        direct = microseconds("hyena", l_max=l_max)
        print(f"hyena, l_max {l_max}: {direct:.0f}, {direct / recurrent:.1f} times the recurrence's")
