"""The layer kit, on every installed backend."""

from helix_testing import BaseLayerTests


class TestEMA(BaseLayerTests):
    layer = "ema"
    configs = ({"d_model": 8}, {"d_model": 5, "longest": 32.0})
