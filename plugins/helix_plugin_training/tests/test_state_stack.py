import numpy as np

import helix_core
from helix_plugin_training.state_stack import StateStack


def test_states_come_back_in_reverse_order_with_their_types():
    backend = helix_core.create("backend", "reference")
    xp = backend.bind(mode="infer").xp
    stack = StateStack(backend, xp, 3)
    states = [
        {"h": xp.full((2, 3), float(i), dtype=xp.float32), "at": xp.asarray(i), "none": None, "rows": (xp.ones(i + 1),)}
        for i in range(3)
    ]
    for state in states:
        stack.push(state)
    states[1]["h"][...] = 7.0  # the stack has copies
    for i in (2, 1, 0):
        found = stack.pop()
        assert found["none"] is None
        assert found["h"].dtype == np.float32
        np.testing.assert_array_equal(found["h"], np.full((2, 3), i))
        assert int(found["at"]) == i
        assert isinstance(found["rows"], tuple)
        assert found["rows"][0].shape == (i + 1,)
