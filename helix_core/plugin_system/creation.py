"""Creating a component: select it, import it, validate its config, build it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from helix_core.errors import ComponentUnavailable, ConfigError, HelixError
from helix_core.isolation import isolated
from helix_core.plugin_system.kind_contract import class_misfit, misfit
from helix_core.plugin_system.loading import describe_failure
from helix_core.plugin_system.refs import load_ref
from helix_core.plugin_system.registry import Component
from helix_core.plugin_system.selection import select
from helix_core.suggest import did_you_mean

if TYPE_CHECKING:
    from pydantic import BaseModel


def create(kind: str, name: str = "auto", **config: Any) -> Any:
    """Build a component by its kind and name; the best one of a kind without a name.

    Raises what `select` raises, ComponentUnavailable if its code cannot be imported or makes something that is none of
    its kind, and ConfigError listing every wrong option.

    >>> from helix_core import create
    >>> layer = create("layer", "mamba", d_model=64)
    >>> layer.config.d_state
    16
    """
    from helix_core.events import emit

    selection = select(kind, name)
    component = selection.chosen
    target = create_target(component)
    validated = validate_config(component, config)
    emit("selected", kind=kind, component=component.full_name, how=selection.how)
    if not component.descriptor.built:
        return _fitting(component, target)
    try:
        made = isolated(target if validated is None else lambda: target(validated))
    except (HelixError, MemoryError):  # what it was asked for may be too large for this machine: no fault of the plugin
        raise
    except Exception as error:
        raise ComponentUnavailable(
            f"{kind} {component.full_name!r} cannot be created: {describe_failure(error)}"
        ) from error
    return _fitting(component, made)


def check(component: Component) -> None:
    """Import all that a descriptor names, and build nothing. Raises ComponentUnavailable if any is wrong or absent."""
    descriptor = component.descriptor
    target = create_target(component)
    if problem := class_misfit(descriptor, target):
        raise _broken(component, f"{descriptor.target}: {problem}")
    if (model := config_model(component)) is not None and descriptor.config_contract is not None:
        wanted = load_ref(descriptor.config_contract)
        if not issubclass(model, wanted):
            raise _broken(component, f"its config {descriptor.config} is no {wanted.__module__}.{wanted.__qualname__}")
    for field in ("probe", "supports"):
        if ref := getattr(descriptor, field, None):
            _load(component, ref)


def config_model(component: Component) -> type[BaseModel] | None:
    """The pydantic model of a component's options, or None if it has none.

    Raises ComponentUnavailable if it cannot be imported or would let a mistyped option pass.
    """
    ref = component.descriptor.config
    if ref is None:
        return None
    from pydantic import BaseModel

    model = _load(component, ref)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        problem = "is not a pydantic model"
    elif model.model_config.get("extra") != "forbid":
        problem = 'must have model_config = ConfigDict(extra="forbid"), so that a mistyped option is an error'
    else:
        return model
    raise _broken(component, f"its config {ref} {problem}")


def validate_config(component: Component, options: dict[str, Any]) -> BaseModel | None:
    """The options as the component's config. Raises ConfigError with each wrong key and its nearest match."""
    label = f"{component.kind} {component.full_name!r}"
    model = config_model(component)
    if model is None:
        if options:
            raise ConfigError(f"{label} takes no options, but got {', '.join(map(repr, options))}")
        return None
    from pydantic import ValidationError

    try:
        return isolated(lambda: model.model_validate(options))
    except ValidationError as error:
        problems = []
        for item in error.errors():
            path = ".".join(map(str, item["loc"])) or "options"
            if item["type"] == "extra_forbidden":
                suggestion = did_you_mean(str(item["loc"][-1]), _options_at(model, item["loc"][:-1]))
                problems.append(f"unknown option {path!r}{suggestion}")
            elif item["type"] == "missing":
                problems.append(f"missing option {path!r}")
            else:
                problems.append(f"{path}: {item['msg'].removeprefix('Value error, ')} (got {item['input']!r})")
        hint = f"`helix describe {component.kind} {component.name}` shows its options"
        raise ConfigError(f"{label} has wrong options:\n  " + "\n  ".join(problems), hint=hint) from None
    except (HelixError, MemoryError):
        raise
    except Exception as error:
        raise ComponentUnavailable(f"{label} cannot check its options: {describe_failure(error)}") from error


def create_target(component: Component) -> Any:
    """What a component's target names, imported but not built. Raises ComponentUnavailable if that fails."""
    return _load(component, component.descriptor.target)


def _options_at(model: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """The options of the model that a path of keys leads to; none if it leads through something else."""
    from pydantic import BaseModel

    for key in path:
        field = model.model_fields.get(str(key))
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)


def _load(component: Component, ref: str) -> Any:
    try:
        return isolated(lambda: load_ref(ref))
    except Exception as error:
        raise _broken(component, f"{ref} cannot be imported: {describe_failure(error)}") from error


def _fitting(component: Component, made: Any) -> Any:
    """What was made, if it is of its kind. Raises ComponentUnavailable if not."""
    find = misfit if component.descriptor.built else class_misfit
    if problem := find(component.descriptor, made):
        raise _broken(component, f"what {component.descriptor.target} gives is wrong: {problem}")
    return made


def _broken(component: Component, what: str) -> ComponentUnavailable:
    return ComponentUnavailable(
        f"{component.kind} {component.full_name!r} is installed but broken: {what}",
        hint=f"this is a fault of plugin {component.plugin!r}: tell its author, or deny it",
    )
