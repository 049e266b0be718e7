"""Distillation: a trained Hyena whose long filters become recurrences of a few modes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from helix_core.errors import UsageError
from helix_core.kinds.component import ComponentConfig
from helix_core.plugin_system import create
from helix_plugin_hyena.hyena import Hyena, HyenaConfig
from helix_plugin_hyena.modal import fit
from helix_plugin_lm.models.config import ModelConfig

if TYPE_CHECKING:
    from collections.abc import Callable

SHARED = ("in_proj.", "short_filter.", "out_proj.", "filter.bias")
FASTEST = 80.0
"""A mode that decays faster than exp(-80) in a step has no second tap in float32."""


def distill(
    config: HyenaConfig, p: Mapping[str, np.ndarray], modes: int, progress: Callable[[], None] | None = None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Parameters of `hyena_recurrent` for those of `hyena`, and each filter's relative error (filters,).

    A filter is fitted over its l_max taps; the recurrence goes on beyond them, where `hyena` sees nothing.
    Raises UsageError for a layer that looks ahead.
    """
    if config.bidirectional:
        raise UsageError("a bidirectional Hyena looks ahead, which no recurrence does: it cannot be distilled")
    layer = Hyena(config)
    F = create("backend", "core/reference").bind(dtype="float64")
    double = {name: np.asarray(value, np.float64) for name, value in p.items()}
    # Without the skips, which stay as they are.
    double["filter.bias"] = np.zeros_like(double["filter.bias"])
    # The first channel of each filter: heads share filters side by side, or a head's channels share one.
    heads = config.heads
    every = slice(None, None, heads.channels // heads.filters) if config.outer_product else slice(heads.filters)
    taps = np.concatenate([h[:, every] for h in layer.filters(F, double, config.l_max)], axis=1)
    log_a, c, errors = [], [], []
    for h in taps.T:
        found = fit(h, modes)
        log_a.append(found.log_a)
        c.append(found.c)
        errors.append(found.error)
        if progress:
            progress()
    poles = np.stack(log_a)
    decay = np.clip(-poles[..., 0], 1e-12, FASTEST)
    made = {
        "filter.log_decay": np.log(decay),
        "filter.phase": poles[..., 1],
        "filter.c": np.stack(c),
    }
    kept = {name: np.asarray(value) for name, value in p.items() if name.startswith(SHARED)}
    return kept | {name: value.astype(np.float32) for name, value in made.items()}, np.array(errors)


def recurrent_component(config: HyenaConfig, modes: int) -> ComponentConfig:
    """The mixer that the parameters of `distill` belong to."""
    options = {name: getattr(config, name) for name in ("order", "num_heads", "outer_product", "short_filter_order")}
    return ComponentConfig.model_validate({"name": "hyena_recurrent", "modes": modes, **options})


def distill_model(
    model: ModelConfig, params: Mapping[str, np.ndarray], modes: int, progress: Callable[[], None] | None = None
) -> tuple[ModelConfig, dict[str, np.ndarray], dict[int, np.ndarray]]:
    """The model with every `hyena` mixer distilled: its config, parameters, and the errors of each block's filters.

    Raises UsageError if it has none.
    """
    configs = {i: _hyena(component, model.d_model) for i, component in enumerate(model.mixer)}
    made, errors = dict(params), {}
    for block in range(model.n_layers):
        config = configs[block % len(model.mixer)]
        if config is None:
            continue
        prefix = f"blocks.{block}.mixer."
        own = {name.removeprefix(prefix): made.pop(name) for name in params if name.startswith(prefix)}
        found, errors[block] = distill(config, own, modes, progress)
        made |= {prefix + name: value for name, value in found.items()}
    if not errors:
        raise UsageError("the model has no mixer `hyena`: there is nothing to distill")
    mixer = tuple(
        component if configs[i] is None else recurrent_component(configs[i], modes)  # type: ignore[arg-type]
        for i, component in enumerate(model.mixer)
    )
    return model.model_copy(update={"mixer": mixer}), made, errors


def filter_count(model: ModelConfig) -> int:
    """Filters that `distill_model` fits."""
    configs = [_hyena(component, model.d_model) for component in model.mixer]
    mixers: list[Any] = [configs[i % len(configs)] for i in range(model.n_layers)]
    return sum(config.filters for config in mixers if config is not None)


def _hyena(component: ComponentConfig, d_model: int) -> HyenaConfig | None:
    layer = create("layer", component.name, d_model=d_model, **component.options)
    return layer.config if type(layer) is Hyena else None
