"""Helix's layers as torch modules: `from helix_plugin_torch.nn import Mamba`.

Each is (B, L, D) -> (B, L, D) and needs only the plugin that the layer comes from; `helix describe layer mamba` shows
its equations and options. A layer of another plugin takes two lines: `class EMA(HelixLayer): layer = "ema"`.
"""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from helix_core.errors import UsageError
from helix_core.plugin_system import config_model, create, select
from helix_plugin_torch.module import HelixModule
from helix_plugin_torch.tables import backend_of


class _Signature:
    """`inspect.signature` of a layer's class: what every layer takes, and the options of its own config."""

    def __get__(self, module: HelixLayer | None, owner: type[HelixLayer]) -> inspect.Signature:
        if module is not None or not hasattr(owner, "layer"):
            raise AttributeError("__signature__")  # of __call__ or __init__, as for any other module
        common = inspect.signature(owner.__init__).parameters
        config = config_model(select("layer", owner.layer).chosen)
        options = inspect.signature(config).parameters if config else {}
        keyword = inspect.Parameter.KEYWORD_ONLY
        own = [p.replace(kind=keyword) for name, p in options.items() if name not in common]
        shared = [p for p in common.values() if p.name not in ("self", "options")]
        return inspect.Signature([shared[0], *own, *shared[1:]])


class HelixLayer(HelixModule):
    """A layer as a torch module: (B, L, D) -> (B, L, D), on the device and in the dtype of its parameters.

    d_model   width of inputs and outputs, D
    dropout   share of outputs that become 0 in training (`.train()`), by torch's generator; none in `.eval()`
    device, dtype   of the parameters, as in torch's own modules; "meta" too, see `reset_parameters`
    options   those of the layer

    Weights are drawn by torch's generator (`torch.manual_seed`). Raises ConfigError that names a wrong option,
    ComponentNotFound if the layer's plugin is not installed, ComponentUnavailable for a device or dtype that no
    installed backend computes on.
    """

    layer: ClassVar[str]
    __signature__ = _Signature()

    def __init__(
        self,
        d_model: int,
        *,
        dropout: float = 0.0,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        model = create("layer", self.layer, d_model=d_model, **options)
        home = torch.get_default_device() if device is None else torch.device(device)
        kept = torch.get_default_dtype() if dtype is None else dtype
        backend = backend_of("cpu" if home.type == "meta" else home.type)
        super().__init__(model, backend, dtype=str(kept).removeprefix("torch."), device=home)
        self.dropout = nn.Dropout(dropout)

    @property
    def d_model(self) -> int:
        """Width of inputs and outputs."""
        width: int = self.model.config.d_model
        return width

    def forward(  # type: ignore[override]
        self, x: Tensor, reset: Tensor | None = None, lengths: Tensor | None = None, *, state: Any = None
    ) -> Any:
        """x (B, L, D) -> y (B, L, D); with a `state`, y and the state after x, for a prompt before steps.

        reset (B, L)   True where a new document starts: nothing before it reaches it or what follows
        lengths (B,)   steps at or beyond a row's length are padding, whose outputs mean nothing
        """
        if x.ndim != 3 or x.shape[-1] != self.d_model:
            raise UsageError(f"{type(self).__name__} takes (B, L, {self.d_model}), and got {tuple(x.shape)}")
        found = super().forward(x, state=state, reset=reset, lengths=lengths)
        if state is None:
            return self.dropout(found)
        y, after = found
        return self.dropout(y), after

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One step of every row: x (B, D) or (B, 1, D) and a state -> y, shaped as x, and the next state.

        The first state is `init_state(B)`, or what `forward` returns after a prompt.
        """
        if x.ndim == 2:
            y, after = self(x[:, None], state=state)
            return y[:, 0], after
        if x.ndim != 3 or x.shape[1] != 1:
            raise UsageError(
                f"a step takes (B, D) or (B, 1, D), and got {tuple(x.shape)}",
                hint="call the module with `state=` to go several steps at once",
            )
        y, after = self(x, state=state)
        return y, after

    def extra_repr(self) -> str:
        """The options that are not at their defaults."""
        return ", ".join(
            f"{name}={value!r}" for name, value in self.model.config.model_dump(exclude_unset=True).items()
        )


class Mamba(HelixLayer):
    """Selective state-space block (Gu and Dao, 2023); parameters are named as in mamba-ssm."""

    layer = "mamba"


class Mamba2(HelixLayer):
    """State-space duality block (Dao and Gu, 2024)."""

    layer = "mamba2"


class Mamba3(HelixLayer):
    """Trapezoidal state space with a turning state, SISO or MIMO (Lahoti et al., 2026)."""

    layer = "mamba3"


class S4(HelixLayer):
    """Structured state-space block, diagonal plus low rank from HiPPO (Gu, Goel and Ré, 2022)."""

    layer = "s4"


class S4D(HelixLayer):
    """Diagonal state-space block, time-invariant (Gu, Gupta, Goel and Ré, 2022)."""

    layer = "s4d"


class RetNet(HelixLayer):
    """Multi-scale retention (Sun et al., 2023)."""

    layer = "retnet"


class GLA(HelixLayer):
    """Gated linear attention (Yang et al., 2023)."""

    layer = "gla"


class GatedDeltaNet(HelixLayer):
    """Gated delta rule (Yang, Kautz and Hatamizadeh, 2024)."""

    layer = "gated_deltanet"


class MinGRU(HelixLayer):
    """Gated recurrent unit as one linear scan (Feng et al., 2024)."""

    layer = "mingru"


class MinLSTM(HelixLayer):
    """Long short-term memory as one linear scan (Feng et al., 2024)."""

    layer = "minlstm"


class RWKV7(HelixLayer):
    """RWKV-7 "Goose" time mix (Peng et al., 2025)."""

    layer = "rwkv7"


class RWKV7ChannelMix(HelixLayer):
    """RWKV-7 channel mix, the MLP beside `RWKV7` (Peng et al., 2025)."""

    layer = "rwkv7_channel_mix"


class RWKV4(HelixLayer):
    """RWKV-4 time mix (Peng et al., 2023)."""

    layer = "rwkv4"


class RWKV4ChannelMix(HelixLayer):
    """RWKV-4 channel mix, the MLP beside `RWKV4` (Peng et al., 2023)."""

    layer = "rwkv4_channel_mix"


class Hyena(HelixLayer):
    """Gated long convolutions with implicit filters (Poli et al., 2023)."""

    layer = "hyena"


class HyenaRecurrent(HelixLayer):
    """Hyena whose long filters are recurrences of a few modes (Massaroli et al., 2023)."""

    layer = "hyena_recurrent"


class MemoryRead(HelixLayer):
    """Reads the best of the steps before it by similarity and importance (Wu et al., 2022)."""

    layer = "memory_read"


class Attention(HelixLayer):
    """Softmax attention with grouped heads, rotary positions and a window (Vaswani et al., 2017)."""

    layer = "attention"


class SwiGLU(HelixLayer):
    """Gated MLP with a SiLU gate (Shazeer, 2020)."""

    layer = "swiglu"


class GeGLU(HelixLayer):
    """Gated MLP with a GELU gate (Shazeer, 2020)."""

    layer = "geglu"


class GeluMLP(HelixLayer):
    """The transformer's MLP with a GELU (Vaswani et al., 2017)."""

    layer = "gelu_mlp"


class MoE(HelixLayer):
    """Mixture of experts: a gate or the experts choose among many MLPs (Shazeer et al., 2017)."""

    layer = "moe"

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        reset: Tensor | None = None,
        lengths: Tensor | None = None,
        *,
        state: Any = None,
        return_loss: bool = False,
    ) -> Any:
        """As every layer; with `return_loss`, the scalar to add to the training loss comes after y.

        It is the experts' balance times the option `balance`, and 0 where experts choose.
        """
        if not return_loss:
            return super().forward(x, reset, lengths, state=state)
        if state is not None:
            raise UsageError("the loss is of training, and a state of decoding: pass one of them")
        F, params = self._ready()
        y, _, loss = self.model.apply_with_loss(F, params, x, reset=reset, lengths=lengths)
        return self.dropout(y), x.new_zeros(()) if loss is None else loss


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
