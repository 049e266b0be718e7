"""What a family of models is: a config read and written, and a name for every tensor."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from reprlib import repr as shortened
from typing import Any

from helix_core.errors import ConfigError, UsageError
from helix_core.kinds.component import ComponentConfig
from helix_core.untrusted import fits
from helix_plugin_lm.models import LanguageModel, ModelConfig
from helix_plugin_lm.models.config import MOST_LAYERS

Config = Mapping[str, Any]
LARGE = 2**31
"""Whole numbers of a config are below it."""


@dataclass(frozen=True)
class Name:
    """A tensor's foreign name and shape; its values lie as Helix has them, whatever axes of length 1 there are."""

    name: str
    shape: tuple[int, ...]


class Family(ABC):
    """One architecture of somebody else's, both ways."""

    model_type: str
    architecture: str
    # Fields of its config.json that `read` does not ask for, and that change no logits.
    neutral: frozenset[str] = frozenset()
    # Fields of the config.json of a run that never had one, beside those of its model.
    fresh: Mapping[str, Any] = {}

    @abstractmethod
    def read(self, config: Config) -> ModelConfig:
        """The model that a config.json describes. Raises ConfigError for what Helix cannot represent."""

    @abstractmethod
    def write(self, model: ModelConfig) -> dict[str, Any] | None:
        """The config.json of a model, or None if the model is of another family."""

    @abstractmethod
    def foreign(self, name: str, shape: tuple[int, ...]) -> Name:
        """What the family calls one of Helix's parameters."""

    def names(self, model: LanguageModel) -> dict[str, Name]:
        """Foreign names by the names of Helix's parameters."""
        return {name: self.foreign(name, spec.shape) for name, spec in model.param_specs().items()}

    head: str = "lm_head.weight"
    # Other names under which a tensor is found in files, by the name it has in `names`.
    aliases: Mapping[str, str] = {}
    # How names of tensors begin that files may have and that no model here reads.
    ignored: tuple[str, ...] = ()


def described(fields: dict[str, Any]) -> ModelConfig:
    """The model of these options. Raises ConfigError for options that no model has."""
    return fits(ModelConfig, fields, "config.json", ConfigError, hint=None)


def number(config: Config, key: str, default: int | None = None, *, least: int = 1) -> int:
    """A whole number of a config. Raises ConfigError if it is absent or none."""
    value = config.get(key, default)
    if not _is_number(value) or not least <= value < LARGE or value != int(value):
        raise ConfigError(f"config.json: {key} must be a whole number, at least {least}; it is {shortened(value)}")
    return int(value)


def layers(config: Config, key: str, default: int | None = None) -> int:
    """The number of blocks of a config. Raises ConfigError before as many are made, if no model has them."""
    count = number(config, key, default)
    if count > MOST_LAYERS:
        raise ConfigError(f"config.json: {key} is {count}; a model has at most {MOST_LAYERS} blocks")
    return count


def real(config: Config, key: str, default: float, *, zero: bool = False) -> float:
    """A positive number of a config, or 0 with `zero`."""
    value = config.get(key, default)
    if not _is_number(value) or not (value > 0 or (zero and value == 0)):
        least = "at least 0" if zero else "above 0"
        raise ConfigError(f"config.json: {key} must be a number {least}; it is {shortened(value)}")
    return float(value)


def _is_number(value: Any) -> bool:
    """Whether a value is a number that a double holds."""
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        return False


def flag(config: Config, key: str, default: bool) -> bool:
    """A boolean of a config."""
    value = config.get(key, default)
    if not isinstance(value, bool):
        raise ConfigError(f"config.json: {key} must be true or false; it is {shortened(value)}")
    return value


def require_one_of(config: Config, key: str, allowed: Iterable[Any], why: str) -> None:
    """Raise ConfigError if a config has another value than Helix's layers can have."""
    allowed = list(allowed)
    if key in config and config[key] not in allowed:
        raise ConfigError(f"config.json: {key} = {shortened(config[key])} cannot be imported: {why}")


def inner_over_width(config: Config, hidden: int) -> int:
    """`expand` as a whole number; an explicit `intermediate_size` counts more, as it does in transformers."""
    expand = number(config, "expand", 2)
    if config.get("intermediate_size") is None:
        return expand
    inner = number(config, "intermediate_size")
    if inner % hidden:
        raise ConfigError(f"config.json: intermediate_size = {inner} is no multiple of hidden_size = {hidden}")
    return inner // hidden


def the_mixer(model: ModelConfig, layer: str) -> dict[str, Any] | None:
    """All options, defaults too, of a model whose every block is `layer`, or None if it has others."""
    from helix_core.plugin_system import create

    if {mixer.name.rpartition("/")[2] for mixer in model.mixer} != {layer}:
        return None
    made = [create("layer", mixer.name, d_model=model.d_model, **mixer.options).config for mixer in model.mixer]
    if any(other != made[0] for other in made):
        raise UsageError(f"the {layer} layers of this run differ from each other; a Hugging Face config has one kind")
    options: dict[str, Any] = made[0].model_dump()
    return options


def short_name(component: ComponentConfig) -> str:
    """A layer's name without that of its plugin."""
    return component.name.rpartition("/")[2]


def the_layers(model: ModelConfig, part: str) -> list[tuple[str, dict[str, Any]]]:
    """The name and all options, defaults too, of the mixer or the mlp of every block."""
    from helix_core.plugin_system import create

    components: tuple[ComponentConfig, ...] = getattr(model, part) or ()
    made = [
        (short_name(c), create("layer", c.name, d_model=model.d_model, **c.options).config.model_dump())
        for c in components
    ]
    return [made[i % len(made)] for i in range(model.n_layers)] if made else []


def repeated(components: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The shortest list that gives these when it is gone through in turn."""
    for size in range(1, len(components)):
        if all(component == components[i % size] for i, component in enumerate(components)):
            return components[:size]
    return components


def plain(model: ModelConfig, layer: str) -> None:
    """Raise UsageError unless a model is nothing but mixers behind RMS norms."""
    if model.mlp is not None:
        mlps = ", ".join(mlp.name for mlp in model.mlp)
        raise UsageError(f"Hugging Face's {layer} has no mlp beside its mixers, this run's model has {mlps}")
    if model.norm != "rms_norm":
        raise UsageError(f"Hugging Face's {layer} has RMS norms, this run's model has {model.norm}")
