"""What a run's recipe says about its model, for those who use the model and do not train it."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from helix_core.errors import ConfigError
from helix_core.kinds.component import ComponentConfig
from helix_plugin_lm.models.config import ModelConfig


class DataSpec(BaseModel):
    """What the model's tokens are: bytes, those of a tokenizer, or those of a generator."""

    model_config = ConfigDict(frozen=True)

    tokenizer: str | None = None
    generator: ComponentConfig | None = None


class RunSpec(BaseModel):
    """The sections of a run's recipe.toml that say what its model is; the others are the trainer's."""

    model_config = ConfigDict(frozen=True)

    name: str
    model: ModelConfig
    data: DataSpec = DataSpec()


def read_spec(path: Path) -> RunSpec:
    """The spec in a run's recipe. Raises ConfigError if the file cannot be read or names no valid model."""
    try:
        return RunSpec.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    except ValidationError as error:
        problems = [f"  {'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise ConfigError(f"{path} describes no valid model:\n" + "\n".join(problems)) from None
