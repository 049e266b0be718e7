"""The layer kit on Mamba and S4D."""

from helix_core.testing import BaseLayerTests


class TestMamba(BaseLayerTests):
    layer = "mamba"
    configs = (
        {"d_model": 8, "d_state": 16},
        {"d_model": 5, "d_state": 3, "d_conv": 1, "dt_rank": 2},
        {"d_model": 20, "d_state": 1, "expand": 1, "d_conv": 3},
    )


class TestS4D(BaseLayerTests):
    layer = "s4d"
    configs = tuple(
        {"d_model": d_model, "d_state": 8, "init": init, "discretization": rule}
        for d_model, init, rule in (
            (8, "lin", "zoh"),
            (5, "inv", "zoh"),
            (4, "real", "zoh"),
            (8, "lin", "bilinear"),
            (5, "inv", "bilinear"),
            (4, "real", "bilinear"),
        )
    )
