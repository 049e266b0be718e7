"""The JAX backend: arrays where JAX puts them, every op and every training step compiled by XLA."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from helix_core.errors import UsageError
from helix_core.kinds.backend import Backend
from helix_core.kinds.params import init_params
from helix_core.ops import OPS, as_op
from helix_plugin_jax.kernels.adamw import SELF_COMPILED
from helix_plugin_jax.namespace import xp

if TYPE_CHECKING:
    from helix_core.kinds.backend import Params
    from helix_core.kinds.decoder import DecodableModel, Decoder
    from helix_core.ops import OpTable

Array = Any
_compiled: dict[tuple[str, str, str], Callable[..., Any]] = {}


class JaxBackend(Backend):
    """JAX's arrays on its default device. Integers have 32 bits unless you set `jax_enable_x64`, and so have floats.

    >>> import numpy as np
    >>> from helix_core import create
    >>> backend = create("backend", "jax")
    >>> F = backend.bind(mode="infer")
    >>> gate, x = (backend.asarray(np.ones((1, 3, 1), np.float32) * c) for c in (0.5, 1.0))
    >>> backend.to_numpy(F.linear_scan(gate, x)[0]).ravel().tolist()
    [1.0, 1.5, 1.75]
    """

    name = "jax"
    namespace = "jax"
    capabilities: ClassVar[frozenset[str]] = frozenset({"grad", "compile", "traces"})

    @property
    def xp(self) -> Any:
        return xp

    @property
    def device(self) -> str:
        platform = jax.default_backend()
        if platform == "gpu":
            return "rocm" if "rocm" in jax.devices()[0].client.platform_version.lower() else "cuda"
        return "metal" if platform == "METAL" else platform

    def dtypes(self) -> tuple[str, ...]:
        wide = ("float64",) if jax.config.read("jax_enable_x64") else ()
        return ("float32", *wide, "bfloat16")

    def asarray(self, array: np.ndarray, dtype: str | None = None) -> Array:
        """Raises UsageError for integers that do not fit into JAX's 32 bits."""
        array = np.asarray(array)
        if dtype is not None and np.issubdtype(array.dtype, np.floating):
            return jnp.array(array, dtype=dtype)
        wide = array.dtype.kind in "iu" and array.dtype.itemsize == 8 and not jax.config.read("jax_enable_x64")
        if wide and array.size and not -(2**31) <= int(array.min()) <= int(array.max()) < 2**31:
            raise UsageError(
                "an integer needs more than 32 bits, which is all that JAX has unless told otherwise",
                hint="set JAX_ENABLE_X64=1 in the environment",
            )
        return jnp.array(array)

    def to_numpy(self, array: Array) -> np.ndarray:
        found = np.asarray(array)
        return found.astype(np.float32) if found.dtype.name == "bfloat16" else found

    def value_and_grad(self, function: Callable[..., Array]) -> Callable[..., tuple[Array, dict[str, Array]]]:
        """The function and its gradient as one program, compiled for every new shape of the arguments."""
        run: Callable[..., tuple[Array, dict[str, Array]]] = jax.jit(jax.value_and_grad(function))
        return run

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        compiled: Callable[..., Any] = jax.jit(function)
        return compiled

    def synchronize(self) -> None:
        jax.effects_barrier()
        jnp.zeros(()).block_until_ready()

    def bind(self, *, dtype: str = "float32", mode: str = "train", pins: Mapping[str, str] | None = None) -> OpTable:
        """The op table; every op is a program of its own, and becomes part of a larger one under `jax.jit`."""
        table = super().bind(dtype=dtype, mode=mode, pins=pins)
        programs = {}
        for name, op in OPS.items():
            if name in SELF_COMPILED:
                continue
            key = (name, table.trail[name].chosen, dtype)
            if key not in _compiled:
                _compiled[key] = as_op(op, jax.jit(getattr(table, name), static_argnames=tuple(op.attrs)))
            programs[name] = _compiled[key]

        def cond(holds: Array, then: Callable[[], Any], otherwise: Callable[[], Any]) -> Any:
            known = table.concrete(holds)
            if known is None:
                return jax.lax.cond(holds, then, otherwise)
            return then() if known else otherwise()

        return table.replace(**programs, cond=cond)

    def decoder(
        self, model: DecodableModel, F: OpTable, params: Params, *, batch: int = 1, weights: str = "float32"
    ) -> Decoder:
        """A decoder whose step is one program that reuses the memory of its state."""
        from helix_plugin_jax.decoder import JaxDecoder

        if weights != "float32":
            return super().decoder(model, F, params, batch=batch, weights=weights)
        return JaxDecoder(model, F, params, batch)

    def functions(
        self, model: Any, *, dtype: str = "float32"
    ) -> tuple[Callable[[int | Array], dict[str, Array]], Callable[..., Any]]:
        """A `LanguageModel` or `Layer` as `(init, apply)`: `init(seed) -> params`, `apply(params, x, **options) -> y`.

        `seed` is a whole number, which means the same parameters on every backend, or a key of JAX's. Both functions
        are pure: `apply` may go through `jax.jit`, `jax.grad`, `jax.vmap` and the rest. With a `state`
        it returns `(y, next state)`; `model.init_state` gives the first.
        """
        F = self.bind(dtype=dtype, mode="train")

        def init(seed: int | Array) -> dict[str, Array]:
            if isinstance(seed, jax.Array):
                typed = jnp.issubdtype(seed.dtype, jax.dtypes.prng_key)
                words = np.asarray(jax.random.key_data(seed) if typed else seed, np.uint32)
                seed = int.from_bytes(words.tobytes(), "big")
            fresh = model.init(seed) if hasattr(model, "init") else init_params(model.param_specs(), seed)
            return {name: self.asarray(value, "float32") for name, value in fresh.items()}

        def apply(params: Params, x: Array, *, state: Any = None, **rows: Any) -> Any:
            y, after = model.apply(F, params, x, state=state, **rows)
            return y if state is None else (y, after)

        return init, apply

    def describe(self) -> dict[str, Any]:
        return {
            **super().describe(),
            "jax": jax.__version__,
            "x64": bool(jax.config.read("jax_enable_x64")),
            "device_kind": jax.devices()[0].device_kind,
            "device_count": jax.device_count(),
        }
