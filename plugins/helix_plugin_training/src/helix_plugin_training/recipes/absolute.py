"""Paths of a recipe, named so that a run can be resumed from any folder."""

from __future__ import annotations

from typing import Any

from helix_core.cli.overrides import is_utf8
from helix_core.errors import DataError
from helix_plugin_training.data.files import absolute_path, absolute_source
from helix_plugin_training.recipes.config import Recipe


def absolute(recipe: Recipe) -> Recipe:
    """The recipe with every path in it absolute. Raises DataError for one that cannot name anything."""
    data: dict[str, Any] = {}
    if recipe.data.generator is None:
        data["source"] = _absolute(recipe.data.source)
    elif "source" in recipe.data.generator.options:  # what generators call the files that they read
        generator = recipe.data.generator
        data["generator"] = generator.model_copy(update={"source": _absolute(generator.options["source"])})
    if recipe.data.tokenizer is not None:
        data["tokenizer"] = _path(recipe.data.tokenizer, "tokenizer")
    training = {} if recipe.training.init is None else {"init": _path(recipe.training.init, "run")}
    return recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update=data),
            "training": recipe.training.model_copy(update=training),
        }
    )


def _absolute(source: Any) -> Any:
    if isinstance(source, str):
        return _utf8(absolute_source(source))
    return tuple(map(_absolute, source)) if isinstance(source, list | tuple) else source


def _path(path: str, what: str) -> str:
    return _utf8(absolute_path(path, what))


def _utf8(path: str) -> str:
    if not is_utf8(path):
        raise DataError(f"{path!r} is not UTF-8 text, as a recipe is", hint="rename it, or work in another folder")
    return path
