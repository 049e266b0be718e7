"""A whole run: train, evaluate, checkpoint, sample, plot, summarise; and the same run resumed."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

from helix_core.cli.progress import Progress
from helix_core.errors import CheckpointError, Interrupted, UsageError
from helix_core.events import Event, emit, subscribe
from helix_core.lock import FolderLock
from helix_core.streams import tell
from helix_core.version import __version__
from helix_plugin_lm.generation import Sampling, Stopping, generate
from helix_plugin_lm.runs.checkpoint import (
    check_size,
    latest_checkpoint,
    load_checkpoint,
    open_checkpoint,
    prune_checkpoints,
)
from helix_plugin_lm.runs.run_folder import JsonLines, RunFolder, write_bytes
from helix_plugin_lm.runs.signals import StopRequest
from helix_plugin_lm.tokenizers import BYTES, TOKENIZER_FILE, FileTokenizer, Tokenizer, check_vocabulary
from helix_plugin_training.data import Corpus, Task, load_corpus, load_task
from helix_plugin_training.evaluation.answers import predict, show_answers
from helix_plugin_training.evaluation.held_out import describe, describe_data, measure, size
from helix_plugin_training.plot import can_plot, plot_losses
from helix_plugin_training.recipes import Recipe, dump_recipe, load_recipe
from helix_plugin_training.recipes.absolute import absolute
from helix_plugin_training.rewind import rewind
from helix_plugin_training.trainer import StepResult, Trainer

BETWEEN_SAMPLES = b"\n\n" + b"-" * 40 + b"\n\n"


@dataclass
class _Clock:
    """Seconds spent in training steps, over all sittings of a run."""

    train_seconds: float = 0.0
    recent: list[float] = field(default_factory=list)

    def add(self, seconds: float) -> None:
        self.train_seconds += seconds
        self.recent = [*self.recent[-19:], seconds]

    @property
    def step_seconds(self) -> float:
        return sum(self.recent) / len(self.recent)


def load_data(recipe: Recipe, tokenizer: Tokenizer | None = None) -> Corpus | Task:
    """What a recipe learns from, in tokens of `tokenizer` where it is files.

    Raises DataError, or what `load_task` raises, if it cannot be had here.
    """
    data = recipe.data
    if data.generator is None:
        return load_corpus(data.source, data.validation, tokenizer)
    seed = recipe.seed if data.seed is None else data.seed
    return load_task(data.generator, seed=seed, train=data.samples, validation=data.validation_samples)


def train(recipe: Recipe, *, runs: str | Path = "runs") -> RunFolder:
    """Carry out a recipe in a new run folder under `runs` and return the folder.

    Raises TrainingError on a loss that is not finite, CheckpointError if state cannot be saved, Interrupted on
    Ctrl-C or SIGTERM once it is saved, and what `Trainer` raises.
    """
    recipe, origin = absolute(recipe), None
    if recipe.training.init is not None:
        origin, path = RunFolder.locate(recipe.training.init)
        if recipe.data.tokenizer is None and (origin.path / TOKENIZER_FILE).exists():
            data = recipe.data.model_copy(update={"tokenizer": str(origin.path / TOKENIZER_FILE)})
            recipe = recipe.model_copy(update={"data": data})
    tokenizer = None
    if recipe.data.tokenizer is not None:
        tokenizer = FileTokenizer(recipe.data.tokenizer, separated=True)
        check_vocabulary(tokenizer, recipe.model.vocab_size)
    trainer = Trainer(recipe, load_data(recipe, tokenizer), tokenizer or BYTES)
    if origin is not None:
        trainer.start_from(open_checkpoint(path), path)
    run = RunFolder.create(Path(runs), recipe.name)
    with run.lock() as lock:
        if origin is not None:
            run.take_companions(origin)
        if tokenizer is not None:
            tokenizer.copy_to(run.path)
        # The recipe comes last: a folder that has one can be resumed, whenever the run is killed.
        run.write_recipe(dump_recipe(recipe))
        return _run(run, trainer, _Clock(), lock)


def resume(run: RunFolder, recipe: Recipe | None = None, *, checkpoint: Path | None = None) -> RunFolder:
    """Continue a run from its newest checkpoint, or from a given one; the loss curve goes on bit by bit.

    Later checkpoints are set aside as a run of their own (`rewind`). A run without a checkpoint, since it was killed
    before its first, starts anew. `recipe` may differ from the run's own in its training and sample sections only.

    Raises InUse while another process writes the run, UsageError if the folder holds links or the like, if the recipe
    differs elsewhere, if the checkpoint is not the run's or if nothing is left to do, CheckpointError if the checkpoint
    is damaged or foreign.
    """
    RunFolder.open(run.path)
    with run.lock() as lock:
        return _resume(run, recipe, checkpoint, lock)


def _resume(run: RunFolder, recipe: Recipe | None, checkpoint: Path | None, lock: FolderLock) -> RunFolder:
    own, where, recipe_file = load_recipe(run.recipe_file), quote(str(run.path)), quote(str(run.recipe_file))
    path = checkpoint or latest_checkpoint(run.checkpoints)
    if path is not None and path.name == "step-00000000" and not run.metrics_file.exists():
        raise UsageError(
            f"run {run.path} was imported, not trained: it has no training to go on with",
            hint=f"helix train {recipe_file} --set training.init={where} --set data.source=FILES fine-tunes it",
        )
    recipe = recipe or own
    fixed = {"training", "sample"}
    if recipe.model_dump(exclude=fixed) != own.model_dump(exclude=fixed):
        raise UsageError("a resumed run keeps its recipe; only `training.*` and `sample.*` may be set")
    if path is not None and path.resolve().parent != run.checkpoints.resolve():
        raise UsageError(f"{path} is not one of the checkpoints of {run.path}")
    if path is None and run.summary_file.exists():
        raise CheckpointError(
            f"run {run.path} was finished, and has no checkpoint any more", hint=f"helix train {recipe_file}"
        )
    loaded = load_checkpoint(path) if path else None
    if loaded:
        check_size(loaded.params, recipe.model, path or run.path)
    tokenizer = None
    if recipe.data.tokenizer is not None:
        tokenizer = FileTokenizer(run.path / TOKENIZER_FILE, separated=True)
    trainer = Trainer(recipe, load_data(recipe, tokenizer), tokenizer or BYTES)
    seconds = 0.0
    if path and loaded:
        trainer.restore(loaded, path)
        seconds = _train_seconds(loaded.metadata, path)
    else:
        print(f"run {run.path} has no checkpoint yet: it starts anew", file=sys.stderr, flush=True)
        if recipe.training.init is not None:
            _, start = RunFolder.locate(recipe.training.init)
            trainer.start_from(open_checkpoint(start), start)
    steps = recipe.training.steps
    if steps is not None and trainer.step >= steps and run.finished_at() == trainer.step:
        raise UsageError(
            f"run {run.path} is complete at step {trainer.step}",
            hint=f"to go on, add `--set training.steps={2 * trainer.step}`",
        )
    rewind(run, trainer.step, ends=steps is not None and trainer.step >= steps)
    return _run(run, trainer, _Clock(seconds), lock)


def _train_seconds(metadata: Mapping[str, Any], path: Path) -> float:
    seconds = metadata.get("train_seconds", 0.0)
    if type(seconds) not in (int, float) or not 0 <= seconds < float("inf"):
        raise CheckpointError(f"{path} is not a checkpoint of a training: its train_seconds are {seconds!r}")
    return float(seconds)


def _run(run: RunFolder, trainer: Trainer, clock: _Clock, lock: FolderLock) -> RunFolder:
    with ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        events = JsonLines(run.events_file)
        stack.callback(events.close)
        stack.enter_context(subscribe(_event_log(events)))
        steps = trainer.recipe.training.steps
        if steps is None:
            duration = trainer.recipe.training.duration
            assert duration is not None  # the recipe's validator saw to it
            tell("timing a few steps; kernels are compiled on their first use")
            steps = max(1, round(duration / trainer.measure_step()))
            training = trainer.recipe.training.model_copy(update={"steps": steps})
            trainer.recipe = trainer.recipe.model_copy(update={"training": training})
        run.write_recipe(dump_recipe(trainer.recipe))
        emit("run_started", run=str(run.path), step=trainer.step, steps=steps, backend=trainer.backend.name)
        metrics = JsonLines(run.metrics_file)
        stack.callback(metrics.close)
        _train_steps(run, trainer, clock, steps, metrics, stop, lock)
        return _finish(run, trainer, clock, metrics, stop, lock)


def _train_steps(
    run: RunFolder,
    trainer: Trainer,
    clock: _Clock,
    steps: int,
    metrics: JsonLines,
    stop: StopRequest,
    lock: FolderLock,
) -> None:
    training = trainer.recipe.training
    every = training.checkpoint_every or max(1, steps // 10)
    saved = trainer.step

    def save() -> None:
        nonlocal saved
        _still_there(run, lock)
        metrics.sync()  # a checkpoint's steps are in the metrics, whatever happens next
        path = trainer.save(run.checkpoints, train_seconds=clock.train_seconds)
        prune_checkpoints(run.checkpoints, training.keep)
        saved = trainer.step
        emit("checkpoint", path=str(path), step=trainer.step)

    with Progress(steps, done=trainer.step) as progress:
        progress.say(f"run folder: {run.path}")
        while trainer.step < steps:
            result = trainer.advance(steps)
            clock.add(result.seconds)
            _report(trainer, clock, steps, result, metrics, progress)
            if training.eval_every and trainer.step % training.eval_every == 0 and trainer.step < steps:
                found = measure(trainer, limited=True)
                done = trainer.step * trainer.tokens_per_step
                metrics.write(step=trainer.step, **{f"{trainer.data.unit}s": done}, **found)
                progress.say(f"step {trainer.step}: held out {describe(found)}")
            if stop.requested or trainer.step % every == 0 or trainer.step == steps:
                save()
            if stop.requested:
                _leave(run, trainer, stop)
    if saved != trainer.step:
        save()


def _report(
    trainer: Trainer, clock: _Clock, steps: int, result: StepResult, metrics: JsonLines, progress: Progress
) -> None:
    unit = trainer.data.unit
    speed = trainer.tokens_per_step / result.seconds
    line = {
        "step": trainer.step,
        f"{unit}s": trainer.step * trainer.tokens_per_step,
        "loss": result.loss,
        f"bits_per_{unit}": result.bits,
        "lr": result.lr,
        "grad_norm": result.grad_norm,
        f"{unit}s_per_second": round(speed, 1),
        "train_seconds": round(clock.train_seconds, 3),
    }
    metrics.write(**line)
    emit("training_step", **line)
    smooth_speed = trainer.tokens_per_step / clock.step_seconds
    progress.update(
        trainer.step,
        f"loss {result.loss:.4f}  {result.bits:.3f} bits/{unit}  {smooth_speed / 1000:.1f} k{unit}s/s",
        seconds_left=(steps - trainer.step) * clock.step_seconds,
    )


def _leave(run: RunFolder, trainer: Trainer, stop: StopRequest) -> None:
    raise Interrupted(
        f"stopped by {stop.requested} after step {trainer.step}; everything is saved in {run.path}",
        hint=f"helix train --resume {quote(str(run.path))}",
    )


def _still_there(run: RunFolder, lock: FolderLock) -> None:
    if not lock.held:
        raise CheckpointError(f"run folder {run.path} was removed or replaced", hint="start the run anew")


def _finish(
    run: RunFolder, trainer: Trainer, clock: _Clock, metrics: JsonLines, stop: StopRequest, lock: FolderLock
) -> RunFolder:
    data, recipe = trainer.data, trainer.recipe
    total, things = size(data)
    with Progress(total, label="evaluating") as progress:

        def advance(count: int) -> None:
            progress.update(progress.done + count, things)
            if stop.requested:
                _leave(run, trainer, stop)

        found = measure(trainer, progress=advance)
    _still_there(run, lock)
    about = describe_data(data)
    done = trainer.step * trainer.tokens_per_step
    metrics.write(step=trainer.step, **{f"{data.unit}s": done}, **found)
    sample = _write_sample(run, trainer)
    if can_plot():
        gzip_bits = about.get("gzip_bits_per_byte") if data.unit == "byte" else None
        plot_losses(
            list(run.metrics()), run.plot_file, title=run.path.name, unit=data.unit, gzip_bits_per_byte=gzip_bits
        )
    summary = {
        **found,
        **about,
        "train_seconds": clock.train_seconds,
        f"train_{data.unit}s": done,
        f"train_{data.unit}s_per_second": done / clock.train_seconds if clock.train_seconds else None,
        "steps": trainer.step,
        "parameters": trainer.parameters,
        "backend": trainer.backend.name,
        "dtype": recipe.backend.dtype,
        "kernels": {op: choice.chosen for op, choice in trainer.F.trail.items()},
        "environment": {
            **trainer.backend.describe(),
            "python": platform.python_version(),
            "machine": platform.machine(),
            "helix_core": __version__,
        },
        "sample": sample,
    }
    run.write_summary(summary)
    emit("run_finished", run=str(run.path), **found)
    return run


def _write_sample(run: RunFolder, trainer: Trainer) -> str:
    """Write generated texts, or answers to held-out samples, and return the file's path inside the run folder."""
    file = run.samples / f"step-{trainer.step:08d}.txt"
    try:
        run.samples.mkdir(exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"cannot make {run.samples}: {error.strerror or error}") from error
    write_bytes(file, _sample(trainer))
    return file.relative_to(run.path).as_posix()


def _sample(trainer: Trainer) -> bytes:
    if isinstance(trainer.data, Task):
        batch = next(trainer.data.held_out(4))
        said, _ = predict(trainer.model, trainer.backend, trainer.F_infer, trainer.params, batch)
        return show_answers(batch, said).encode()
    spec = trainer.recipe.sample
    prompt = spec.prompt.encode()
    context = trainer.model.context
    if context is not None and len(trainer.tokenizer.prompt(prompt)) > context:
        return prompt
    sampling = Sampling(spec.temperature, spec.top_k, spec.top_p, spec.min_p, spec.repetition_penalty)
    stopping = Stopping(max_bytes=spec.max_bytes, tokens=trainer.tokenizer.ends)
    texts = []
    for number in range(spec.count):
        text = generate(
            trainer.model,
            trainer.backend,
            trainer.F_infer,
            trainer.params,
            prompt,
            sampling=sampling,
            stopping=stopping,
            tokenizer=trainer.tokenizer,
            seed=trainer.recipe.seed + number,
        )
        texts.append(prompt + b"".join(text))
    return BETWEEN_SAMPLES.join(texts)


def _event_log(lines: JsonLines) -> Any:
    """An observer that writes events as JSON lines through structlog; steps are in metrics.jsonl already."""
    import structlog

    class Sink:
        def msg(self, message: dict[str, Any]) -> None:
            lines.write(**message)

        info = msg

    def as_dict(logger: Any, method: str, event: Any) -> Any:
        return ((event,), {})

    log = structlog.wrap_logger(Sink(), processors=[structlog.processors.TimeStamper(fmt="iso"), as_dict])

    def observe(event: Event) -> None:
        if event.name != "training_step":
            log.info(event.name, **event.data)

    return observe
