"""Errors that say what happened, where, and what to do next."""

from __future__ import annotations


class HelixError(Exception):
    """Base of every error Helix raises on purpose.

    `hint` is the next step for the user; the CLI prints it on its own line and exits with `exit_code`.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  -> {self.hint}" if self.hint else self.message


class UsageError(HelixError):
    """The request itself is wrong: a mistyped name, a bad option, an invalid recipe."""

    exit_code = 2


class IndexOutOfRange(UsageError, IndexError):
    """A token or a target is none of those that there are."""


class ConfigError(UsageError):
    """A config or recipe does not validate; the message lists each wrong key with its path."""


class PluginError(HelixError):
    """A plugin cannot be used: broken on import, denied, or written for another core."""


class ComponentNotFound(UsageError):
    """No installed plugin provides a component of that name."""


class AmbiguousComponent(UsageError):
    """Several plugins provide a component of that name; `plugin/name` picks one."""


class ComponentUnavailable(HelixError):
    """The component is installed but cannot run here; the message says why."""


class DataError(HelixError):
    """Training or evaluation data is missing, empty or too small."""


class CheckpointError(HelixError):
    """A checkpoint is truncated, foreign, or could not be written."""


class NotEnoughMemory(HelixError):
    """The work needs more memory than the machine has; the message names both numbers."""


class MemoryStoreError(HelixError):
    """A memory's store on disk is missing, truncated, foreign, or could not be written."""


class InUse(HelixError):
    """Another process is writing the same run or store; the message gives its pid and host."""


class TrainingError(HelixError):
    """Training cannot go on, for instance because the loss is not finite."""


class EvaluationError(HelixError):
    """An evaluation gives no number, for instance because the model's output is not finite."""


class GenerationError(HelixError):
    """Generation cannot go on, for instance because the logits are not finite."""


class TokenizerError(HelixError):
    """A tokenizer is missing, damaged, or cannot encode a text."""


class Interrupted(HelixError):
    """The user stopped the job (Ctrl-C, SIGTERM) after its state was saved."""

    exit_code = 130
