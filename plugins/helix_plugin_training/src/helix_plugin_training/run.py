"""A whole run: train, evaluate, checkpoint, sample, plot, summarise; and the same run resumed."""

from __future__ import annotations

import platform
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helix_core.cli.progress import Progress
from helix_core.errors import Interrupted, UsageError
from helix_core.events import Event, emit, subscribe
from helix_core.streams import tell
from helix_core.version import __version__
from helix_plugin_lm.generation import Sampling, Stopping, generate
from helix_plugin_lm.runs.checkpoint import check_size, load_checkpoint, open_checkpoint, prune_checkpoints
from helix_plugin_lm.runs.run_folder import JsonLines, RunFolder
from helix_plugin_lm.runs.signals import StopRequest
from helix_plugin_lm.tokenizers import BYTES, TOKENIZER_FILE, FileTokenizer, Tokenizer, check_vocabulary
from helix_plugin_training.data import Corpus, Task, load_corpus, load_task
from helix_plugin_training.evaluation.held_out import describe, facts, measure, size
from helix_plugin_training.evaluation.task import predict, show_answers
from helix_plugin_training.plot import can_plot, plot_losses
from helix_plugin_training.recipes import Recipe, dump_recipe, load_recipe
from helix_plugin_training.recipes.absolute import absolute
from helix_plugin_training.trainer import StepResult, Trainer


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
    if origin is not None:
        run.take_companions(origin)
    if tokenizer is not None:
        tokenizer.copy_to(run.path)
    return _run(run, trainer, _Clock(), fresh=True)


def resume(run: RunFolder, recipe: Recipe | None = None, *, checkpoint: Path | None = None) -> RunFolder:
    """Continue a run from its newest checkpoint, or from a given one; the loss curve goes on bit by bit.

    `recipe` may differ from the run's own in its training and sample sections only. Raises UsageError if it differs
    elsewhere or if nothing is left to do, CheckpointError if the checkpoint is damaged or foreign.
    """
    own = load_recipe(run.recipe_file)
    if not run.metrics_file.exists() and run.latest_checkpoint().name == "step-00000000":
        raise UsageError(
            f"run {run.path} was imported, not trained: it has no training to go on with",
            hint=f"helix train {run.recipe_file} --set training.init={run.path} --set data.source=FILES fine-tunes it",
        )
    recipe = recipe or own
    fixed = {"training", "sample"}
    if recipe.model_dump(exclude=fixed) != own.model_dump(exclude=fixed):
        raise UsageError("a resumed run keeps its recipe; only `training.*` and `sample.*` may be set")
    path = checkpoint or run.latest_checkpoint()
    loaded = load_checkpoint(path)
    check_size(loaded.params, recipe.model, path)
    tokenizer = None
    if recipe.data.tokenizer is not None:
        tokenizer = FileTokenizer(run.path / TOKENIZER_FILE, separated=True)
    trainer = Trainer(recipe, load_data(recipe, tokenizer), tokenizer or BYTES)
    trainer.restore(loaded, path)
    if recipe.training.steps is not None and trainer.step >= recipe.training.steps and run.summary_file.exists():
        raise UsageError(
            f"run {run.path} is complete at step {trainer.step}",
            hint=f"to go on, add `--set training.steps={2 * trainer.step}`",
        )
    run.truncate_metrics(trainer.step)
    return _run(run, trainer, _Clock(loaded.facts.get("train_seconds", 0.0)), fresh=False)


def _run(run: RunFolder, trainer: Trainer, clock: _Clock, *, fresh: bool) -> RunFolder:
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
        _train_steps(run, trainer, clock, steps, metrics, stop)
        return _finish(run, trainer, clock, metrics, stop)


def _train_steps(
    run: RunFolder, trainer: Trainer, clock: _Clock, steps: int, metrics: JsonLines, stop: StopRequest
) -> None:
    training = trainer.recipe.training
    every = training.checkpoint_every or max(1, steps // 10)
    saved = trainer.step

    def save() -> None:
        nonlocal saved
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
                found = measure(trainer, some=True)
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
        hint=f"helix train --resume {run.path}",
    )


def _finish(run: RunFolder, trainer: Trainer, clock: _Clock, metrics: JsonLines, stop: StopRequest) -> RunFolder:
    data, recipe = trainer.data, trainer.recipe
    total, things = size(data)
    with Progress(total, label="evaluating") as progress:

        def advance(count: int) -> None:
            progress.update(progress.done + count, things)
            if stop.requested:
                _leave(run, trainer, stop)

        found = measure(trainer, progress=advance)
    about = facts(data)
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
    """Write a generated text, or answers to held-out samples, and return the file's path inside the run folder."""
    run.samples.mkdir(exist_ok=True)
    file = run.samples / f"step-{trainer.step:08d}.txt"
    if isinstance(trainer.data, Task):
        batch = next(trainer.data.held_out(4))
        said, _ = predict(trainer.model, trainer.backend, trainer.F_infer, trainer.params, batch)
        file.write_text(show_answers(batch, said))
        return file.relative_to(run.path).as_posix()
    spec = trainer.recipe.sample
    prompt = spec.prompt.encode()
    context = trainer.model.context
    if context is not None and len(trainer.tokenizer.prompt(prompt)) > context:
        file.write_bytes(prompt)
        return file.relative_to(run.path).as_posix()
    text = generate(
        trainer.model,
        trainer.backend,
        trainer.F_infer,
        trainer.params,
        prompt,
        sampling=Sampling(spec.temperature, spec.top_k, spec.top_p, spec.min_p, spec.repetition_penalty),
        stopping=Stopping(max_bytes=spec.max_bytes, tokens=trainer.tokenizer.ends),
        tokenizer=trainer.tokenizer,
        seed=trainer.recipe.seed,
    )
    file.write_bytes(prompt + b"".join(text))
    return file.relative_to(run.path).as_posix()


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
