"""Training: recipes carried out in run folders that survive kills and continue bit by bit."""

from helix_core.training.evaluation import Evaluation, evaluate, gzip_bits_per_byte
from helix_core.training.run import load_data, resume, train
from helix_core.training.run_folder import RunFolder
from helix_core.training.task_evaluation import TaskEvaluation, evaluate_task
from helix_core.training.trainer import StepResult, Trainer

__all__ = [
    "Evaluation",
    "RunFolder",
    "StepResult",
    "TaskEvaluation",
    "Trainer",
    "evaluate",
    "evaluate_task",
    "gzip_bits_per_byte",
    "load_data",
    "resume",
    "train",
]
