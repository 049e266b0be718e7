"""A component as configs name it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from helix_core.errors import ConfigError


class ComponentConfig(BaseModel):
    """A component by name, with its own options beside it: `{name = "mamba", d_state = 16}`."""

    model_config = ConfigDict(extra="allow", frozen=True, ser_json_inf_nan="constants")

    name: str = Field(description="`layer` or `plugin/layer`")

    @property
    def options(self) -> dict[str, Any]:
        """The component's own options; its config model validates them."""
        return dict(self.model_extra or {})


def layer_of(component: ComponentConfig, d_model: int) -> Any:
    """The layer that a config names inside something of width `d_model`.

    Raises ConfigError if the config has a width of its own, and what `create` raises.
    """
    from helix_core.plugin_system import create

    if "d_model" in component.options:
        raise ConfigError(f"layer {component.name!r} is as wide as the model: set d_model there alone")
    return create("layer", component.name, d_model=d_model, **component.options)
