"""What a plugin must keep to: names, descriptor fields, and the version of the plugin API."""

from __future__ import annotations

import re
from typing import Any

from helix_core.plugin_system.descriptors import DESCRIPTORS, PLUGIN_API
from helix_core.plugin_system.refs import is_ref

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_CLASSES = {cls.kind: cls for cls in DESCRIPTORS}
_TEXTS = ("summary", "stability", "op", "namespace", "gradient")
_REFS = ("target", "config", "probe", "supports")
_OPTIONAL = ("config", "probe", "supports")
_WORDS = ("requires", "provides", "replaces", "devices", "dtypes")


class BrokenContract(ValueError):
    """What a plugin says about itself breaks the contract."""


def is_name(name: object) -> bool:
    """Whether `name` can name a plugin or a component."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def check_descriptor(descriptor: Any, kind: str, hook: str) -> None:
    """Raise BrokenContract unless `descriptor` is a well-formed one of `kind`."""
    cls = _CLASSES[kind]
    if not isinstance(descriptor, cls):
        raise BrokenContract(f"{hook} must return {cls.__name__} objects, not {type(descriptor).__name__}")
    label = f"{kind} {descriptor.name!r}"
    if not is_name(descriptor.name):
        raise BrokenContract(f"{label}: a name is made of a-z, 0-9, '-' and '_'")
    fields = vars(descriptor)
    for field in _TEXTS:
        if not isinstance(fields.get(field, ""), str):
            raise BrokenContract(f"{label}: {field} must be a string, not {fields[field]!r}")
    for field in _REFS:
        ref = fields.get(field)
        if not (isinstance(ref, str) and is_ref(ref)) and not (ref is None and field in _OPTIONAL):
            raise BrokenContract(f"{label}: {field} must be 'module:attribute', not {ref!r}")
    for field in _WORDS:
        words = fields.get(field, ())
        if not isinstance(words, tuple) or not all(isinstance(word, str) for word in words):
            raise BrokenContract(f"{label}: {field} must be a tuple of strings, not {words!r}")
    if not isinstance(descriptor.priority, int):
        raise BrokenContract(f"{label}: priority must be an integer, not {descriptor.priority!r}")
    if reason := api_refusal(descriptor.api):
        raise BrokenContract(f"{label} {reason}")


def api_refusal(api: object) -> str | None:
    """Why a plugin API version does not fit this core's, or None: equal major, minor not above."""
    try:
        major, minor = (int(part) for part in str(api).split("."))
    except ValueError:
        return f"has PLUGIN_API {api!r}, which is not of the form '1.0'"
    core_major, core_minor = (int(part) for part in PLUGIN_API.split("."))
    if major != core_major or minor > core_minor:
        return f"is written for plugin API {api}, this core has {PLUGIN_API}"
    return None
