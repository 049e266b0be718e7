"""Whether a component is what its kind promises: asked when it is created, so that nothing fails later, elsewhere."""

from __future__ import annotations

from typing import Any

from helix_core.plugin_system.descriptors import Descriptor
from helix_core.plugin_system.refs import load_ref


def misfit(descriptor: Descriptor, made: Any) -> str | None:
    """Why a component that was made is none of its kind, or None."""
    if descriptor.contract is None:
        return None
    base = load_ref(descriptor.contract)
    if not isinstance(made, base):
        return f"it is {_kind_of(made)}, which is no {_name(base)}"
    lacking = [name for name in getattr(base, "__annotations__", ()) if not hasattr(made, name)]
    if lacking:
        return f"it has no {' and no '.join(map(repr, lacking))}, which every {_name(base)} has"
    if descriptor.config_contract is not None:
        config, wanted = getattr(made, "config", None), load_ref(descriptor.config_contract)
        if not isinstance(config, wanted):
            return f"its `config` is {_kind_of(config)}, which is no {_name(wanted)}"
    return None


def class_misfit(descriptor: Descriptor, target: Any) -> str | None:
    """Why what a target names cannot make a component of its kind, as far as can be said without calling it."""
    if not descriptor.built and descriptor.contract is not None:
        return misfit(descriptor, target)
    if not (callable(target) or hasattr(target, "forward")):  # a kernel with its own backward is an object
        return f"it is {_kind_of(target)}, which cannot be called"
    if descriptor.contract is not None and isinstance(target, type):
        base = load_ref(descriptor.contract)
        if not issubclass(target, base):
            return f"class {target.__name__} is no {_name(base)}"
    return None


def _kind_of(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__module__}.{type(value).__qualname__}"


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
