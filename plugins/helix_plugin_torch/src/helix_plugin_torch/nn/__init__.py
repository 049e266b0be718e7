"""Helix's layers as torch modules: `from helix_plugin_torch import nn`, `nn.Mamba(256)`.

Each is (B, L, D) -> (B, L, D) for B sequences of L positions and D channels, and needs only the plugin that the layer
comes from. `help(nn.Mamba)` shows its options, `helix describe layer mamba` its equations too. A layer of another
plugin takes two lines: `class EMA(nn.HelixLayer): layer = "ema"`.

>>> import torch
>>> from helix_plugin_torch import nn
>>> model = torch.nn.Sequential(nn.Mamba(16, d_state=4), torch.nn.LayerNorm(16), nn.SwiGLU(16))
>>> model(torch.ones(2, 7, 16)).shape
torch.Size([2, 7, 16])
"""

from __future__ import annotations

from helix_plugin_torch.nn._convolution import Hyena, HyenaRecurrent
from helix_plugin_torch.nn._layer import HelixLayer
from helix_plugin_torch.nn._linear_attention import GLA, RWKV4, RWKV7, GatedDeltaNet, RetNet
from helix_plugin_torch.nn._mlp import GeGLU, GeluMLP, MoE, RWKV4ChannelMix, RWKV7ChannelMix, SwiGLU
from helix_plugin_torch.nn._recurrent import MinGRU, MinLSTM
from helix_plugin_torch.nn._softmax_attention import Attention, MemoryRead
from helix_plugin_torch.nn._state_space import S4, S4D, Mamba, Mamba2, Mamba3

__all__ = [
    "GLA",
    "RWKV4",
    "RWKV7",
    "S4",
    "S4D",
    "Attention",
    "GatedDeltaNet",
    "GeGLU",
    "GeluMLP",
    "HelixLayer",
    "Hyena",
    "HyenaRecurrent",
    "Mamba",
    "Mamba2",
    "Mamba3",
    "MemoryRead",
    "MinGRU",
    "MinLSTM",
    "MoE",
    "RWKV4ChannelMix",
    "RWKV7ChannelMix",
    "RetNet",
    "SwiGLU",
]


def __dir__() -> list[str]:
    return __all__
