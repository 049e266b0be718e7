"""Recipes: one TOML file from which a run follows completely."""

from helix_plugin_training.recipes.config import Recipe
from helix_plugin_training.recipes.load import dump_recipe, load_recipe, parse_recipe, recipe_of

__all__ = ["Recipe", "dump_recipe", "load_recipe", "parse_recipe", "recipe_of"]
