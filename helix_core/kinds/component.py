"""A component as configs name it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class ComponentConfig(BaseModel):
    """A component by name, with its own options beside it: `{name = "mamba", d_state = 16}`."""

    model_config = ConfigDict(extra="allow", frozen=True, ser_json_inf_nan="constants")

    name: str = Field(description="`layer` or `plugin/layer`")

    @property
    def options(self) -> dict[str, Any]:
        """The component's own options; its config model validates them."""
        return dict(self.model_extra or {})
