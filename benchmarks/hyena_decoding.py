"""A step of decoding in microseconds: Hyena's exact sum over its history, exact by blocks, and distilled to 16 modes.

One layer, batch 1, one thread, all rows in one process: the best of four runs of twenty steps; of blocks, whose steps
differ, the mean of as many steps as there are taps, and the longest. `python benchmarks/hyena_decoding.py`
"""

import time

import torch

import helix_core
from helix_core.kinds.params import init_params

D_MODEL, MODES, STEPS = 192, 16, 20


def times(name: str, steps: int, **options: int | str) -> list[float]:
    """The microseconds of each step on backend `cpu`."""
    backend = helix_core.create("backend", "cpu")
    F = backend.bind(mode="infer")
    layer = helix_core.create("layer", name, d_model=D_MODEL, **options)
    p = {k: backend.asarray(v, "float32") for k, v in init_params(layer.param_specs(), 0).items()}
    x = torch.randn(1, 1, D_MODEL)
    found = []
    with backend.inference():
        state = layer.init_state(F, 1)
        for _ in range(steps):
            begin = time.perf_counter()
            _, state = layer.apply(F, p, x, state=state)
            found.append((time.perf_counter() - begin) * 1e6)
    return found


def best(name: str, **options: int | str) -> float:
    """The time of a step, where all are alike."""
    found = times(name, 4 * STEPS, **options)
    return min(sum(found[i : i + STEPS]) / STEPS for i in range(0, len(found), STEPS))


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(f"hyena_recurrent, {MODES} modes: {best('hyena_recurrent', modes=MODES):.0f}")
    for taps in (1024, 8192, 65536):
        direct = best("hyena", l_max=taps, decoding="direct")
        times("hyena", 64, l_max=taps, decoding="online")
        online = times("hyena", taps, l_max=taps, decoding="online")
        mean = sum(online) / taps
        print(
            f"l_max {taps}: sum {direct:.0f}, blocks {mean:.0f} (longest {max(online):.0f}), {direct / mean:.1f} times"
        )
