"""One optimizer step at a time: parameters, optimizer state and how they advance."""

from __future__ import annotations

import hashlib
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from helix_core.errors import CheckpointError, ConfigError, TrainingError
from helix_core.machine import available_memory, require_memory
from helix_core.ops.half import storage
from helix_core.plugin_system import create, select
from helix_plugin_lm.models import LanguageModel, loss
from helix_plugin_lm.runs.checkpoint import Checkpoint, StoredCheckpoint, all_finite, check_params, save_checkpoint
from helix_plugin_lm.tokenizers import BYTES, Tokenizer, check_vocabulary
from helix_plugin_training.chunked import chunked_value_and_grad
from helix_plugin_training.data import Batch, Batches, Corpus, Task, TaskBatches
from helix_plugin_training.optimizers.clip import clip_by_global_norm, global_norm
from helix_plugin_training.recipes import Recipe
from helix_plugin_training.reversible import reversible_value_and_grad

if TYPE_CHECKING:
    from helix_core.kinds.backend import Backend
    from helix_core.kinds.lr_schedule import LRSchedule
    from helix_core.kinds.optimizer import Optimizer

CALIBRATION_STEPS = 10


@dataclass(frozen=True)
class StepResult:
    """What one step reports: loss in nats per byte or token, gradient norm before clipping, learning rate, seconds."""

    loss: float
    grad_norm: float
    lr: float
    seconds: float

    @property
    def bits(self) -> float:
        """The loss in bits."""
        return self.loss / math.log(2)


class Trainer:
    """A model, its optimizer and its data, bound to a backend that can train; `tokenizer` is that of a corpus.

    Raises ConfigError, ComponentNotFound, ComponentUnavailable or DataError if the recipe cannot be carried out here,
    UsageError if a layer of the model looks ahead and the data do not allow that.

    `params` and `moments` are the trainer's own: the next `advance` writes over them, so copy what should be kept.
    """

    def __init__(self, recipe: Recipe, data: Corpus | Task, tokenizer: Tokenizer = BYTES) -> None:
        self.recipe, self.data, self.tokenizer = recipe, data, tokenizer
        training = recipe.training
        chosen = select("backend", recipe.backend.name, needs=("grad",)).chosen
        self.backend: Backend = create("backend", chosen.full_name)
        pins = recipe.backend.kernels
        self.F = self.backend.bind(dtype=recipe.backend.dtype, mode="train", pins=pins)
        self.F_infer = self.backend.bind(dtype=recipe.backend.dtype, mode="infer", pins=pins)
        self.model = LanguageModel(recipe.model)
        if not (isinstance(data, Task) and data.generator.looks_ahead):
            self.model.require_causal("training on the next token")
        self.optimizer: Optimizer[Any] = create("optimizer", recipe.optimizer.name, **recipe.optimizer.options)
        self.lr_schedule: LRSchedule[Any] = create("lr_schedule", recipe.lr_schedule.name, **recipe.lr_schedule.options)
        self.batches: Batches | TaskBatches
        if isinstance(data, Task):
            needed, given = data.generator.vocab_size, recipe.model.vocab_size
            if needed > given:
                raise ConfigError(
                    f"the generator has {needed} different tokens, the model {given}",
                    hint=f"set model.vocab_size = {needed}",
                )
            self.seq_len = data.generator.seq_len
            self.batches = TaskBatches(data, batch_size=training.batch_size, seed=recipe.seed)
        else:
            check_vocabulary(tokenizer, recipe.model.vocab_size)
            self.seq_len = training.seq_len
            self.batches = Batches(
                data.train,
                batch_size=training.batch_size,
                seq_len=training.seq_len,
                seed=recipe.seed,
                separator=data.separator,
            )
        self._require_memory()
        specs = self.model.param_specs()
        self._decayed = frozenset(name for name, spec in specs.items() if spec.weight_decay)
        self._lr_scale = {name: spec.lr_scale for name, spec in specs.items() if spec.lr_scale != 1.0}
        self._value_and_grad = self._gradient()
        self.step = 0
        self._own = False  # arrays that came from elsewhere are not written over
        self._updating = False
        self.params = self._to_backend(self.model.init(recipe.seed))
        self.moments = self.optimizer.init(self.F_infer, self.params)

    @property
    def tokens_per_step(self) -> int:
        """Bytes, for data of files."""
        training = self.recipe.training
        return training.batch_size * self.seq_len * training.accumulation

    @property
    def parameters(self) -> int:
        """Number of trained values."""
        return self.model.parameters

    def _require_memory(self) -> None:
        """Refuse what can never fit, before anything is made: only what is certainly there at the same time counts."""
        training, model = self.recipe.training, self.recipe.model
        half = self.recipe.backend.dtype in ("bfloat16", "float16")
        number = np.dtype(storage(self.recipe.backend.dtype)).itemsize
        trained = (2 + len(self.optimizer.slots)) * self.parameters * number  # with their gradients and moments
        tokens = training.batch_size * min(training.chunk or self.seq_len, self.seq_len)
        # What each block reads waits for the way back; reversible blocks compute it again.
        streams = (
            tokens * model.d_model * (number // 2 if half else number) * (1 if model.reversible else model.n_layers)
        )
        hint = "lower training.batch_size or the model's size, or set training.chunk"
        what = f"training {self.parameters:,} parameters on {tokens:,} tokens at once"
        require_memory(trained + streams, self.backend.memory(), what, hint=hint)
        rows = self.tokens_per_step * 17  # tokens, targets and resets
        require_memory(rows, available_memory(), f"a step of {self.tokens_per_step:,} tokens", hint=hint)

    def _gradient(self) -> Callable[..., tuple[Any, dict[str, Any]]]:
        """`(params, tokens, targets, reset, weights, key) -> (loss, gradient by name)`."""
        chunk = self.recipe.training.chunk
        if chunk is not None and chunk < self.recipe.training.seq_len:
            return chunked_value_and_grad(self.backend, self.model, self.F, self.F_infer, chunk)
        if self.model.config.reversible:
            return reversible_value_and_grad(self.backend, self.model, self.F, self.F_infer)
        return self.backend.value_and_grad(
            self.backend.compile(self._loss) if self.recipe.backend.compile else self._loss
        )

    def measure_step(self) -> float:
        """Seconds of a typical undisturbed step, from a few whose results are thrown away."""
        times = [self._compute(0)[2].seconds for _ in range(CALIBRATION_STEPS)]
        # The first steps compile kernels and fill caches; of the others, other programs only ever add to the time.
        return statistics.quantiles(times[2:], n=4)[0]

    def advance(self, total: int) -> StepResult:
        """Take the next of `total` steps.

        Raises TrainingError, with the parameters as they were, if the loss or a gradient is not finite, and if the step
        before was interrupted while parameters were written.
        """
        self._require_whole()
        factor = self.lr_schedule(self.step, total)
        params, moments, result = self._compute(self.step, lr=factor * self.optimizer.config.lr, donate=self._own)
        self.params, self.moments = params, moments
        self._own, self._updating = True, False
        self.step += 1
        return result

    def _require_whole(self) -> None:
        if self._updating:
            raise TrainingError(
                f"step {self.step + 1} was interrupted while parameters were written, so they are of two steps",
                hint="restore a checkpoint, or start again",
            )

    def _compute(self, step: int, lr: float = 0.0, donate: bool = False) -> tuple[Any, Any, StepResult]:
        began = time.perf_counter()
        xp, training = self.backend.xp, self.recipe.training
        value, grads = self.gradient(step)
        with self.backend.inference():
            norm = global_norm(xp, grads)
            loss_value, norm_value = float(value), float(norm)
            for what, number in (("loss", loss_value), ("gradient norm", norm_value)):
                if not math.isfinite(number):
                    raise TrainingError(
                        f"the {what} is {number} at step {step + 1}",
                        hint="the last checkpoint is kept; lower optimizer.lr or training.clip, or warm up for longer",
                    )
            if training.clip is not None and norm_value > training.clip:
                grads, _ = clip_by_global_norm(xp, grads, training.clip, norm)
            self._updating = donate
            params, moments = self.optimizer.update(
                self.F_infer,
                self.params,
                grads,
                self.moments,
                lr=lr,
                step=step + 1,
                decayed=self._decayed,
                lr_scale=self._lr_scale,
                donate=donate,
            )
        self.backend.synchronize()
        return params, moments, StepResult(loss_value, norm_value, lr, time.perf_counter() - began)

    def gradient(self, step: int) -> tuple[Any, dict[str, Any]]:
        """Mean loss over all scored tokens of a step's micro-batches, and its gradient by parameter."""
        parts = self.recipe.training.accumulation
        batches = [self.batches(step, part) for part in range(parts)]
        # Micro-batches may have differently many scored tokens; each token counts the same.
        scored = sum(int(batch.mask.sum()) for batch in batches if batch.mask is not None)
        value: Any = 0.0
        grads: dict[str, Any] = {}
        for part, batch in enumerate(batches):
            part_value, part_grads = self._value_and_grad(
                self.params, *self._arrays(batch, scored), self._key(step, part)
            )
            value = value + part_value
            grads = {k: grads[k] + g for k, g in part_grads.items()} if part else part_grads
        if scored or parts == 1:
            return value, grads
        return value / parts, {k: g / parts for k, g in grads.items()}

    def _arrays(self, batch: Batch, scored: int) -> tuple[Any, Any, Any, Any]:
        asarray = self.backend.asarray
        reset = asarray(batch.reset) if self.recipe.data.reset else None
        weights = None if batch.mask is None else asarray(batch.mask / scored, storage(self.recipe.backend.dtype))
        return asarray(batch.tokens), asarray(batch.targets), reset, weights

    def _key(self, step: int, part: int) -> Any:
        """The random key of a micro-batch, a function of the seed and its place; None for a model without chance."""
        if not self.model.random:
            return None
        digest = hashlib.blake2b(f"{self.recipe.seed}:{step}:{part}".encode(), digest_size=4).digest()
        return self.backend.asarray(np.array([int.from_bytes(digest, "little") >> 1], dtype=np.int32))

    def _loss(self, params: Any, tokens: Any, targets: Any, reset: Any, weights: Any = None, key: Any = None) -> Any:
        return loss(self.model, self.F, params, tokens, targets, reset=reset, weights=weights, key=key)

    def save(self, folder: Path, **metadata: Any) -> Path:
        """Write a checkpoint of this state.

        Raises CheckpointError if that fails, TrainingError if a number of it is not finite, from which no run recovers,
        or if a step was interrupted while parameters were written.
        """
        self._require_whole()
        to_numpy = self.backend.to_numpy
        params = {name: to_numpy(p) for name, p in self.params.items()}
        moments = {f"{slot}/{name}": to_numpy(m) for slot, held in self.moments.items() for name, m in held.items()}
        for name, array in {**params, **moments}.items():
            if not all_finite(array):
                raise TrainingError(
                    f"{name} holds NaN or infinity after step {self.step}, which is not saved",
                    hint="the last checkpoint is kept; lower optimizer.lr or training.clip, or warm up for longer",
                )
        metadata = {"data": self.data.fingerprint, "backend": self.backend.name, **metadata}
        return save_checkpoint(folder, self.step, params, moments, metadata)

    def start_from(self, checkpoint: StoredCheckpoint, origin: Path) -> None:
        """Take a checkpoint's parameters, and nothing else of it. Raises CheckpointError if they do not fit."""
        specs = self.model.param_specs()
        check_params(checkpoint.params, {name: spec.shape for name, spec in specs.items()}, origin)
        self.params = {name: self._to_backend({name: checkpoint.params[name].numpy()})[name] for name in specs}
        self._own = False

    def restore(self, checkpoint: Checkpoint, origin: Path) -> None:
        """Continue from a checkpoint. Raises CheckpointError if it is of another model, optimizer or data."""
        specs = self.model.param_specs()
        check_params(checkpoint.params, {name: spec.shape for name, spec in specs.items()}, origin)
        slots = {f"{slot}/{name}": m.shape for slot, held in self.moments.items() for name, m in held.items()}
        check_params(checkpoint.moments, slots, origin)
        if checkpoint.metadata.get("data") != self.data.fingerprint:
            raise CheckpointError(
                "the data source has changed since this run began, so it cannot continue the same curve",
                hint="restore the files or the generator's version, or start a new run",
            )
        self.step = checkpoint.step
        self._own = self._updating = False
        # In the model's own order, not the file's: the order in which the global norm is summed counts in the last bit.
        self.params = self._to_backend({name: checkpoint.params[name] for name in specs})
        self.moments = {
            slot: {name: self._like(m, checkpoint.moments[f"{slot}/{name}"]) for name, m in held.items()}
            for slot, held in self.moments.items()
        }

    def _like(self, array: Any, values: np.ndarray) -> Any:
        """Values of the optimizer's state, in the dtype that it keeps them in."""
        found = self.backend.asarray(values)
        return found if found.dtype == array.dtype else self.backend.xp.astype(found, array.dtype)

    def _to_backend(self, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
        return {name: self.backend.asarray(a, storage(self.recipe.backend.dtype)) for name, a in arrays.items()}
