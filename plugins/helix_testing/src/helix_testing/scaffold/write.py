"""Fill the templates of a plugin and write them to a new folder."""

from __future__ import annotations

import importlib.resources
import inspect
import keyword
import math
import re
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template
from typing import Any

from helix_core.errors import UsageError

KINDS = ("backend", "kernel", "layer", "optimizer", "lr_schedule", "memory", "generator", "command")
# What the plugin of a kind needs besides core.
_REQUIRES = {
    "kernel": ("array-api-compat>=1.12", "torch>=2.6"),
    "memory": ("helix-plugin-lm{core}",),
    "command": ("click>=8.2",),
}
_NAME = re.compile(r"^[a-z][a-z0-9-]*$")


def write_plugin(kind: str, name: str, folder: Path, *, op: str = "rms_norm") -> list[Path]:
    """Write the plugin `name` with one component of `kind` into `folder`; returns the files written.

    `op` is the op that a kernel implements. Raises UsageError for a bad name, an unknown op, or a folder that
    already has something in it.
    """
    if kind not in KINDS:
        raise UsageError(f"`helix new` writes one of {', '.join(KINDS)}, not {kind!r}")
    if not _NAME.match(name) or keyword.iskeyword(name):
        raise UsageError(f"{name!r} cannot name a component", hint="use a-z, 0-9 and '-', beginning with a letter")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} already exists and is not empty")
    words = _words(kind, name, op)
    written = []
    root = importlib.resources.files("helix_testing.scaffold") / "templates"
    for part in ("common", kind):
        for source, relative in _walk(root / part):
            target = folder / relative.replace("PACKAGE", words["package"]).replace("MODULE", words["module"])
            target = target.with_name(target.name.removesuffix(".tmpl"))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(Template(source.read_text(encoding="utf-8")).substitute(words), encoding="utf-8")
            written.append(target)
    return sorted(written)


def _words(kind: str, name: str, op: str) -> dict[str, str]:
    from helix_core.plugin_system.descriptors import PLUGIN_API
    from helix_core.version import __version__

    module = name.replace("-", "_")
    major, minor = __version__.split(".")[:2]
    core = f">={major}.{minor},<{major}.{int(minor) + 1}"
    words = {
        "kind": kind,
        "name": name,
        "module": module,
        "cls": "".join(part.capitalize() for part in name.split("-")),
        "package": f"helix_plugin_{module}",
        "dist": f"helix-plugin-{name}",
        "core": core,
        "requires": "".join(f', "{r.format(core=core)}"' for r in _REQUIRES.get(kind, ())),
        "api": PLUGIN_API,
        "op": op,
    }
    return words | (_op_words(op) if kind == "kernel" else {})


def _written(default: Any) -> str:
    """A default as source, in which infinity has no name of its own; nothing where there is none."""
    if default is inspect.Parameter.empty:
        return ""
    return ' = float("inf")' if default == math.inf else f" = {default!r}"


def _op_words(op: str) -> dict[str, str]:
    from helix_core.ops import OPS
    from helix_core.suggest import did_you_mean

    if op not in OPS:
        raise UsageError(f"no op named {op!r}{did_you_mean(op, OPS)}", hint="`helix explain op` lists them")
    spec = OPS[op]
    arrays = [f"{a}: Tensor | None = None" if a in spec.optional else f"{a}: Tensor" for a in spec.arrays]
    declared = inspect.signature(spec.reference).parameters
    attrs = [f"{a}: {declared[a].annotation}{_written(v)}" for a, v in spec.attrs.items()]
    call = [*spec.arrays, *(f"{a}={a}" for a in spec.attrs)]
    result = "Tensor" if len(spec.outputs) == 1 else f"tuple[{', '.join(['Tensor'] * len(spec.outputs))}]"
    return {
        "parameters": "".join(f"    {p},\n" for p in [*arrays, *(["*"] if attrs else []), *attrs]),
        "arguments": ", ".join(call),
        "result": result,
        "op_summary": spec.summary,
    }


def _walk(folder: Traversable, prefix: str = "") -> Iterator[tuple[Traversable, str]]:
    for entry in folder.iterdir():
        path = f"{prefix}{entry.name}"
        if entry.is_dir():
            yield from _walk(entry, f"{path}/")
        elif entry.name.endswith(".tmpl"):
            yield entry, path
