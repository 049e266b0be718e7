"""Creating a component: select it, import it, validate its config, build it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helix_core.errors import ComponentUnavailable, ConfigError, HelixError
from helix_core.plugin_system.loading import describe_failure, without_exit
from helix_core.plugin_system.refs import load_ref
from helix_core.plugin_system.registry import Component
from helix_core.plugin_system.selection import select, warn_about_broken
from helix_core.suggest import did_you_mean

if TYPE_CHECKING:
    from pydantic import BaseModel


def create(kind: str, name: str = "auto", **config: Any) -> Any:
    """Build a component: `create("layer", "mamba", d_model=64)`.

    Raises what `select` raises, ComponentUnavailable if its code cannot be imported, and ConfigError listing every
    wrong option.
    """
    from helix_core.events import emit

    selection = select(kind, name)
    component = selection.chosen
    warn_about_broken(selection)
    target = create_target(component)
    validated = validate_config(component, config)
    emit("selected", kind=kind, component=component.full_name, how=selection.how)
    try:
        return without_exit(target if validated is None else lambda: target(validated))
    except HelixError:
        raise
    except Exception as error:
        raise ComponentUnavailable(
            f"{kind} {component.full_name!r} cannot be created: {describe_failure(error)}"
        ) from error


def config_model(component: Component) -> type[BaseModel] | None:
    """The pydantic model of a component's options, or None if it has none."""
    ref = component.descriptor.config
    return None if ref is None else _load(component, ref)


def validate_config(component: Component, options: dict[str, Any]) -> BaseModel | None:
    """The options as the component's config. Raises ConfigError with each wrong key and its nearest match."""
    from pydantic import ValidationError

    label = f"{component.kind} {component.full_name!r}"
    model = config_model(component)
    if model is None:
        if options:
            raise ConfigError(f"{label} takes no options, but got {', '.join(map(repr, options))}")
        return None
    try:
        return model.model_validate(options)
    except ValidationError as error:
        problems = []
        for item in error.errors():
            path = ".".join(map(str, item["loc"]))
            if item["type"] == "extra_forbidden":
                problems.append(f"unknown option {path!r}{did_you_mean(path, model.model_fields)}")
            elif item["type"] == "missing":
                problems.append(f"missing option {path!r}")
            else:
                problems.append(f"{path}: {item['msg'].removeprefix('Value error, ')} (got {item['input']!r})")
        hint = f"`helix describe {component.kind} {component.name}` shows its options"
        raise ConfigError(f"{label} has wrong options:\n  " + "\n  ".join(problems), hint=hint) from None


def create_target(component: Component) -> Any:
    """Import what a component's target names, without building it. Raises ComponentUnavailable if that fails."""
    return _load(component, component.descriptor.target)


def _load(component: Component, ref: str) -> Any:
    try:
        return without_exit(lambda: load_ref(ref))
    except Exception as error:
        raise ComponentUnavailable(
            f"{component.kind} {component.full_name!r} is installed but broken: {ref} cannot be imported: "
            f"{describe_failure(error)}"
        ) from error
