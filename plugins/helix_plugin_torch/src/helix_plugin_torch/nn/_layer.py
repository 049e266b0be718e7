"""What all layers have in common as torch modules.

B sequences, L positions, D channels.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from helix_core.errors import HelixError, UsageError
from helix_core.plugin_system import config_model, create, select
from helix_plugin_torch.dtypes import dtype_name
from helix_plugin_torch.module import HelixModule
from helix_plugin_torch.tables import backend_of

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


def _options(layer: str) -> dict[str, FieldInfo]:
    """The options of a layer's own config. Raises ComponentNotFound if its plugin is not installed."""
    config = config_model(select("layer", layer).chosen)
    fields = config.model_fields if config else {}
    return {name: field for name, field in fields.items() if name != "d_model"}


class _Signature:
    """`inspect.signature` of a layer's class: what every layer takes, and the options of its own config."""

    def __get__(self, module: HelixLayer | None, owner: type[HelixLayer]) -> inspect.Signature:
        own = AttributeError("__signature__")  # then that of __call__ or __init__ serves, as for any other module
        if module is not None or not hasattr(owner, "layer"):
            raise own
        try:
            options = _options(owner.layer)
        except HelixError:
            raise own from None
        common = inspect.signature(owner.__init__, eval_str=True).parameters
        d_model, *others = (p for p in common.values() if p.name not in ("self", "options"))
        parameters = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=_default(field), annotation=field.annotation
            )
            for name, field in options.items()
            if name not in common
        ]
        return inspect.Signature([d_model, *parameters, *others])


class _Documentation:
    """`help` of a layer's class: its docstring, or the layer's summary, and the options of its config."""

    def __init__(self, text: str | None) -> None:
        self.text = text

    def __get__(self, module: HelixLayer | None, owner: type[HelixLayer]) -> str:
        try:
            text = inspect.cleandoc(self.text or select("layer", owner.layer).chosen.descriptor.summary)
            names = {_assignment(name, field): field.description or "" for name, field in _options(owner.layer).items()}
        except HelixError as error:
            return f"{inspect.cleandoc(self.text or '')}\n\nIts options cannot be shown: {error}".strip()
        if not names:
            return text
        width = max(map(len, names))
        lines = [f"    {name:{width}}  {description}".rstrip() for name, description in names.items()]
        return "\n".join([text, "", "Options, besides those of every layer:", *lines])


def _assignment(name: str, field: FieldInfo) -> str:
    return name if field.is_required() else f"{name}={_default(field)!r}"


def _default(field: FieldInfo) -> Any:
    return inspect.Parameter.empty if field.is_required() else field.get_default(call_default_factory=True)


class HelixLayer(HelixModule):
    """A layer as a torch module: (B, L, D) -> (B, L, D), on the device and in the dtype of its parameters.

    d_model   width of inputs and outputs, D
    dropout   share of outputs that become 0 in training (`.train()`), by torch's generator; none in `.eval()`
    device, dtype   of the parameters, as in torch's own modules; "meta" too, see `reset_parameters`
    options   those of the layer

    Weights are drawn by torch's generator (`torch.manual_seed`). Raises ConfigError that names a wrong option,
    ComponentNotFound if the layer's plugin is not installed, ComponentUnavailable for a device or dtype that no
    installed backend computes on.

    Subclasses name a layer, which may be one of another plugin:

    >>> import torch
    >>> from helix_plugin_torch import nn
    >>> class Retention(nn.HelixLayer):
    ...     layer = "retnet"
    >>> Retention(16, n_heads=2, device="cpu")(torch.ones(2, 7, 16)).shape
    torch.Size([2, 7, 16])
    """

    layer: ClassVar[str]
    """Name of the layer: "mamba", or "ssm/mamba" with its plugin."""

    __signature__ = _Signature()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "layer" in cls.__dict__:
            cls.__doc__ = _Documentation(cls.__dict__.get("__doc__"))  # type: ignore[assignment]  # read as text

    def __init__(
        self,
        d_model: int,
        *,
        dropout: float = 0.0,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        """Make the layer, with fresh parameters."""
        model = create("layer", self.layer, d_model=d_model, **options)
        device = torch.get_default_device() if device is None else torch.device(device)
        dtype = torch.get_default_dtype() if dtype is None else dtype
        backend = backend_of("cpu" if device.type == "meta" else device.type)
        super().__init__(model, backend, dtype=dtype_name(dtype), device=device)
        self.dropout = nn.Dropout(dropout)

    @property
    def d_model(self) -> int:
        """Width of inputs and outputs."""
        width: int = self.model.config.d_model
        return width

    def forward(  # type: ignore[override]  # a layer's arguments, by name
        self, x: Tensor, reset: Tensor | None = None, lengths: Tensor | None = None, *, state: Any = None
    ) -> Any:
        """x (B, L, D) -> y (B, L, D); with a `state`, y and the state after x, for a prompt before steps.

        reset (B, L)   True where a new document starts: nothing before it reaches it or what follows
        lengths (B,)   steps at or beyond a row's length are padding, whose outputs mean nothing

        Raises UsageError for an x of another shape.

        >>> import torch
        >>> from helix_plugin_torch import nn
        >>> layer = nn.Mamba(16).eval()
        >>> layer(torch.ones(2, 7, 16), lengths=torch.tensor([7, 5])).shape
        torch.Size([2, 7, 16])
        >>> prompt = torch.ones(2, 7, 16)
        >>> y, state = layer(prompt, state=layer.init_state(batch=2))
        >>> torch.allclose(y, layer(prompt), atol=1e-5)
        True
        """
        if x.ndim != 3 or x.shape[-1] != self.d_model:
            raise UsageError(f"{type(self).__name__} takes (B, L, {self.d_model}), and got {tuple(x.shape)}")
        outputs = super().forward(x, state=state, reset=reset, lengths=lengths)
        if state is None:
            return self.dropout(outputs)
        y, after = outputs
        return self.dropout(y), after

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One step of every row: x (B, D) or (B, 1, D) and a state -> y, shaped as x, and the next state.

        The first state is `init_state(B)`, or what `forward` returns after a prompt. Raises UsageError for an x of
        another shape.

        >>> import torch
        >>> from helix_plugin_torch import nn
        >>> layer = nn.Mamba(16).eval()
        >>> y, state = layer.step(torch.ones(2, 16), layer.init_state(batch=2))
        >>> y.shape
        torch.Size([2, 16])
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
        """The options that were given, for `repr`."""
        return ", ".join(
            f"{name}={value!r}" for name, value in self.model.config.model_dump(exclude_unset=True).items()
        )
