"""A Helix model or layer as a `torch.nn.Module`.

B sequences, L positions, D channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from helix_core.kinds.params import init_params
from helix_core.ops import half
from helix_core.tree import tree_map
from helix_plugin_torch.dtypes import HALF, dtype_name
from helix_plugin_torch.tables import TensorBackend, backend_of

if TYPE_CHECKING:
    from helix_core.ops import OpTable


class _Widened(Mapping[str, Tensor]):
    """Parameters in float32, which models expect beside activations in half precision; each is cast when it is read."""

    def __init__(self, stored: dict[str, Tensor]) -> None:
        self._stored = stored

    def __getitem__(self, name: str) -> Tensor:
        parameter = self._stored[name]
        return parameter.float() if parameter.dtype in HALF else parameter

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


class _ParameterGroup(nn.Module):
    """Parameters that stand under one prefix of a model's names."""

    def __init__(self) -> None:
        super().__init__()
        self._names: list[str] = []

    def _add(self, name: str, value: Tensor) -> None:
        self.register_parameter(name, nn.Parameter(value))
        self._names.append(name)

    def _by_name(self) -> dict[str, Tensor]:
        """The group's own parameters; by attribute, because one that is tied or parametrised is no parameter here."""
        return {name: getattr(self, name) for name in self._names}


class Weights(_ParameterGroup):
    """Parameters of one part of a model: called, it returns them by name.

    What torch offers for a module's weights works on its names and its calls: a tied weight is another module's, a
    parametrised one a property, and a pruned one is computed by a hook before the call.
    """

    def forward(self) -> dict[str, Tensor]:
        """Return the parameters by name."""
        return self._by_name()


class HelixModule(_ParameterGroup):
    """Parameters in nested modules under their Helix names, so `state_dict`, FSDP, compile and export work.

    model    a `LanguageModel` or a `Layer`: anything with `param_specs()` and `apply(F, params, x, ...)`
    backend  a `TorchBackend`
    params   NumPy arrays by name; fresh ones are drawn if absent, from `seed` or else from torch's own generator
    dtype    of parameters and activations; `.bfloat16()`, `.to(dtype)` and their like change both
    device   where the parameters are, by default where the backend's tensors are; "meta" for parameters without values,
             which `to_empty` and `reset_parameters` give them. On another device than the backend's, after `.to` too,
             the backend of that device computes

    Inside `torch.autocast`, parameters stay as they are and activations are of its dtype. Raises ComponentUnavailable
    for a dtype that the backend does not compute in. Backends make it:

    >>> import torch, helix_core
    >>> backend = helix_core.create("backend", "cpu")
    >>> module = backend.module(helix_core.create("layer", "mamba", d_model=16), seed=0)
    >>> module(torch.ones(2, 7, 16)).shape  # (B, L, D)
    torch.Size([2, 7, 16])
    >>> module.state_dict()["in_proj.weight"].shape
    torch.Size([64, 16])
    """

    def __init__(
        self,
        model: Any,
        backend: TensorBackend,
        params: Mapping[str, Any] | None = None,
        *,
        seed: int | None = None,
        dtype: str = "float32",
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        self.model, self._backend = model, backend
        home = backend.home if device is None else device
        table = self._bind(home.type, dtype)
        kept = getattr(torch, dtype)
        self._tables: dict[tuple[str, torch.dtype], OpTable] = {(home.type, kept): table}
        if home.type == "meta":
            drawn = {name: torch.empty(p.shape, dtype=kept, device=home) for name, p in model.param_specs().items()}
        else:
            values = self._drawn(seed) if params is None else params
            drawn = {name: backend.asarray(value, dtype).clone().to(home) for name, value in values.items()}
        self._groups: list[str] = []
        for name, value in drawn.items():
            path, _, leaf = name.rpartition(".")
            self._group(path)._add(leaf, value)
            if path not in self._groups:
                self._groups.append(path)

    def _group(self, path: str) -> _ParameterGroup:
        """The submodule at a path, made if there is none yet; the module itself at the empty one."""
        group: _ParameterGroup = self
        for name in path.split(".") if path else ():
            if name not in group._modules:
                group.add_module(name, Weights())
            child = group._modules[name]
            assert isinstance(child, _ParameterGroup)
            group = child
        return group

    def _drawn(self, seed: int | None = None) -> Mapping[str, Any]:
        """Fresh parameters, from a seed or else from torch's own generator."""
        if seed is None:
            seed = int(torch.randint(2**63 - 1, (), dtype=torch.int64, device="cpu"))
        drawn: Mapping[str, Any] = (
            self.model.init(seed) if hasattr(self.model, "init") else init_params(self.model.param_specs(), seed)
        )
        return drawn

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the parameters anew, from torch's own generator: those of a module made on "meta", after `to_empty`."""
        own = dict(self.named_parameters(remove_duplicate=False))
        for name, drawn in self._drawn().items():
            parameter, value = own[name], torch.from_numpy(drawn)
            if hasattr(parameter, "device_mesh") and hasattr(parameter, "placements"):
                # Of FSDP2 or tensor parallelism: the first rank's values for all.
                from torch.distributed.tensor import distribute_tensor

                value = distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
            parameter.copy_(value)

    @property
    def F(self) -> OpTable:
        """The ops, bound for the dtype that activations have now."""
        return self._bound(next(self.parameters()))

    def _weights(self) -> dict[str, Tensor]:
        """The parameters by their Helix names, as a call uses them: tied, pruned and parametrised ones too."""
        weights = {}
        for path in self._groups:
            group = self.get_submodule(path)() if path else self._by_name()
            weights.update({f"{path}.{name}" if path else name: value for name, value in group.items()})
        return weights

    def forward(self, x: Tensor, *, state: Any = None, **rows: Tensor | None) -> Any:
        """Tokens (B, L) or features (B, L, D) -> outputs; with a `state`, (outputs, next state).

        Further keyword arguments (`mask`, `reset`, `lengths`) are those of the model's or layer's `apply`.
        """
        F, params = self._ready()
        y, after = self.model.apply(F, params, x, state=state, **rows)
        return y if state is None else (y, after)

    def _ready(self) -> tuple[OpTable, Mapping[str, Tensor]]:
        """The ops and the parameters of a call."""
        stored = self._weights()
        F = self._bound(next(iter(stored.values())))
        return F, _Widened(stored) if F.dispatch_key.dtype in half.HALF else stored

    def init_state(self, batch: int) -> Any:
        """The state before the first step of `batch` rows."""
        device = next(self.parameters()).device
        with torch.no_grad():
            return tree_map(lambda array: array.to(device), self.model.init_state(self.F, batch))

    def _bound(self, parameter: Tensor) -> OpTable:
        """The ops for parameters like this one: of their dtype, or of that of autocast."""
        dtype, device = parameter.dtype, parameter.device.type
        if device != "meta" and torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        if (device, dtype) not in self._tables:
            self._tables[device, dtype] = self._bind(device, dtype_name(dtype))
        return self._tables[device, dtype]

    def _bind(self, device: str, dtype: str) -> OpTable:
        own = device in (self._backend.home.type, "meta")
        return (self._backend if own else backend_of(device)).bind(dtype=dtype, mode="train")

    def __getstate__(self) -> dict[str, Any]:
        # Without tables: where it is loaded, there may be other devices.
        return {**self.__dict__, "_tables": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # torch's is not annotated
        for parameter in self.parameters():
            self._bound(parameter)
            break

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> HelixModule:
        # Before anything changes: a dtype or device that no backend has is refused, and compilers find a bound table.
        for parameter in self.parameters():
            self._bound(fn(torch.empty(0, dtype=parameter.dtype, device=parameter.device)))
            break
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch's is not annotated
        return self
