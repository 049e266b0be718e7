"""Training: recipes carried out in run folders that survive kills and continue bit by bit.

Everything here is imported on first use: the plugin module, which every command loads, stays cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from helix_core.lazy import lazy_attributes

_HOMES = {
    "TaskEvaluation": "helix_plugin_training.evaluation.answers",
    "evaluate_task": "helix_plugin_training.evaluation.answers",
    "Evaluation": "helix_plugin_training.evaluation.text",
    "evaluate": "helix_plugin_training.evaluation.text",
    "gzip_bits_per_byte": "helix_plugin_training.evaluation.text",
    "Recipe": "helix_plugin_training.recipes",
    "load_recipe": "helix_plugin_training.recipes",
    "load_data": "helix_plugin_training.run",
    "resume": "helix_plugin_training.run",
    "train": "helix_plugin_training.run",
    "StepResult": "helix_plugin_training.trainer",
    "Trainer": "helix_plugin_training.trainer",
}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_attributes(__name__, _HOMES)

if TYPE_CHECKING:
    from helix_plugin_training.evaluation.answers import TaskEvaluation as TaskEvaluation
    from helix_plugin_training.evaluation.answers import evaluate_task as evaluate_task
    from helix_plugin_training.evaluation.text import Evaluation as Evaluation
    from helix_plugin_training.evaluation.text import evaluate as evaluate
    from helix_plugin_training.evaluation.text import gzip_bits_per_byte as gzip_bits_per_byte
    from helix_plugin_training.recipes import Recipe as Recipe
    from helix_plugin_training.recipes import load_recipe as load_recipe
    from helix_plugin_training.run import load_data as load_data
    from helix_plugin_training.run import resume as resume
    from helix_plugin_training.run import train as train
    from helix_plugin_training.trainer import StepResult as StepResult
    from helix_plugin_training.trainer import Trainer as Trainer
