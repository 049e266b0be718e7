"""The cases of the drill: each disturbs runs, sets them right, and returns what it did in words."""

import json
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from lives import HOST, at_event, count_events, die, disk_is_full, helix, small_files, start, takes_room, until, warm_up
from tiny import STEPS, begun, check, compare, refused, result, succeeded, write_data, write_recipe


@dataclass
class Drill:
    """Where it happens, how often, and the undisturbed run that all are compared with."""

    folder: Path
    kills: int
    random: Random
    recipe: Path = Path()
    run: Path = Path()
    whole: dict = field(default_factory=dict)
    seconds: float = 0.0
    events: int = 0

    def fresh(self, name):
        """An empty folder for runs."""
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        return place

    def killed_run(self, name):
        """A run that was killed when it had two checkpoints."""
        runs = self.fresh(name)
        life = helix("train", self.recipe, "--runs", runs)
        until(lambda: len(list(runs.glob("*/checkpoints/step-*"))) > 1)
        life.kill()
        run = begun(runs)
        check(not (run / "summary.json").exists(), "the run ended before it could be killed")
        return run


def undisturbed(drill):
    write_data(drill.folder / "data")
    drill.recipe = write_recipe(drill.folder / "drill.toml", drill.folder / "data")
    warm_up("train", str(drill.recipe), "--runs", str(drill.fresh("whole")))
    runs, counted = drill.fresh("whole"), drill.folder / "events"
    began = time.monotonic()
    succeeded(helix("train", drill.recipe, "--runs", runs, before=count_events(runs, counted)))
    drill.seconds, drill.events = time.monotonic() - began, int(counted.read_text())
    drill.run = begun(runs)
    drill.whole = result(drill.run)
    check([line["step"] for line in drill.whole["metrics"] if "loss" in line] == list(range(1, STEPS + 1)), "no curve")
    return f"one of {STEPS} steps: {drill.seconds:.1f} s, {drill.events} file-system events"


def kills(drill):
    random, killed, finished, older, by_clock = drill.random, 0, 0, 0, 0
    runs = drill.fresh("kills")
    while killed < drill.kills or begun(runs):
        run = begun(runs)
        arguments = ["train", drill.recipe, "--runs", runs]
        if run:
            saved = sorted((run / "checkpoints").glob("step-*"))
            old = len(saved) > 1 and random.random() < 0.2
            older += old
            arguments = ["train", "--resume", random.choice(saved[:-1]) if old else run]
        clock = killed % 2 == 0
        if killed >= drill.kills:
            life = helix(*arguments)
        elif clock:
            life = helix(*arguments)
            time.sleep(random.uniform(0, drill.seconds))
            os.kill(life.pid, 9)
        else:
            life = helix(*arguments, before=at_event(runs, random.randint(1, drill.events), die))
        code = life.wait()
        if code == -9:
            killed += 1
            by_clock += clock
        complete = run and code == 2 and "is complete at step" in life.output
        check(code in (0, -9) or complete, f"it ended with {code}: {life.output}")
        if code == 0 or complete:
            compare(begun(runs), drill.whole)
            finished += 1
            runs = drill.fresh("kills")
    return f"{killed} kills ({by_clock} by the clock, {killed - by_clock} at file-system events), {finished} runs " + (
        f"finished bit by bit, {older} resumes from older checkpoints"
    )


def two_writers(drill):
    run = drill.killed_run("writers")
    first = helix("train", "--resume", run, "--set", "training.steps=1000000")
    until(lambda: f"{first.pid} " in (run / ".lock").read_text())
    refused(helix("train", "--resume", run), 1, f"process {first.pid} on {HOST}")
    first.kill()
    succeeded(helix("train", "--resume", run, "--set", f"training.steps={STEPS}"))
    races = 6
    for number in range(races):
        run = drill.killed_run("writers")
        lives = [helix("train", "--resume", run) for _ in range(2)]
        codes = [life.wait() for life in lives]
        said = [life.output for life in lives]
        # The second is refused while the first trains, or finds the run complete.
        check(sorted(codes) in ([0, 1], [0, 2]), f"race {number}: they ended with {codes}: {said}")
        compare(run, drill.whole)
    return f"a second writer was refused with the pid and host of the first, {races} races had one winner each"


def two_memories(drill):
    place, each, writers = drill.folder / "memory", 8, 3

    def work(seed):
        import numpy as np

        from helix_core.errors import InUse, MemoryStoreError
        from helix_core.plugin_system import create

        random = Random(seed)
        for number in range(each):
            while True:
                memory = create("memory", "topological", dim=8)
                memory.load(place)
                memory.add(np.full(8, 1.0), np.array([100 * seed + number]))
                try:
                    memory.save(place)
                    break
                except (InUse, MemoryStoreError):
                    time.sleep(random.uniform(0, 0.05))
        return 0

    def count(values):
        import numpy as np

        from helix_core.plugin_system import create

        memory = create("memory", "topological", dim=8)
        if not values:
            memory.add(np.full(8, 1.0), np.array([0]))
            memory.save(place)
            return 0
        memory.load(place)
        found = sorted(memory.query(np.full(8, 1.0), 1000).values[0])
        return 0 if [value for value in found if value > 0] == values else 1

    succeeded(start(lambda: count([])))
    for life in [start(lambda seed=seed: work(seed)) for seed in range(1, writers + 1)]:
        succeeded(life)
    succeeded(start(lambda: count([100 * s + n for s in range(1, writers + 1) for n in range(each)])))
    return f"{writers} processes saved {writers * each} items to one store, none was lost"


def full_disk(drill):
    limits, moments = [0, 60, 900, 1500, 4000], 15
    for size in limits:
        runs = drill.fresh("full")
        refused(helix("train", drill.recipe, "--runs", runs, before=small_files(size)), 1, "File too large")
        _set_right(drill, runs)
    stopped = 0
    for _ in range(moments):
        runs = drill.fresh("full")
        hook = at_event(runs, drill.random.randint(1, drill.events // 2), disk_is_full, takes_room)
        life = helix("train", drill.recipe, "--runs", runs, before=hook)
        code = life.wait()
        check(code in (0, 1, 2), f"it ended with {code}: {life.output}")
        check("Traceback" not in life.output and "HELIX_DEBUG" not in life.output, f"it broke: {life.output}")
        check(code == 0 or "No space left" in life.output, f"it did not say why: {life.output}")
        stopped += code != 0
        _set_right(drill, runs)
    return (
        f"{len(limits)} limits and {moments} moments at which nothing could be written; {stopped + len(limits)} stops"
    )


def _set_right(drill, runs):
    """With room again the run goes on, or starts if it had not begun, and ends as the undisturbed one."""
    run = begun(runs)
    life = helix("train", "--resume", run) if run else helix("train", drill.recipe, "--runs", runs)
    code = life.wait()
    check(code == 0 or (code == 2 and "is complete" in life.output), f"it ended with {code}: {life.output}")
    compare(begun(runs), drill.whole)


def shrunk_data(drill):
    data = drill.folder / "data"
    file, changed = data / "3.txt", 0
    whole = file.read_bytes()
    for kept in (0, 1, len(whole) // 2, len(whole) - 1):
        run = drill.killed_run("shrunk")
        before = _contents(run / "checkpoints")
        file.write_bytes(whole[:kept])
        refused(helix("train", "--resume", run), 1)
        check(_contents(run / "checkpoints") == before, "the refusal changed checkpoints")
        file.write_bytes(whole)
        succeeded(helix("train", "--resume", run))
        compare(run, drill.whole)
        changed += 1
    # While it trains: whatever it does then, it is no crash, and the run goes on once the file is back.
    runs = drill.fresh("shrunk")
    life = helix("train", drill.recipe, "--runs", runs)
    until(lambda: list(runs.glob("*/checkpoints/step-*")))
    with file.open("r+b") as opened:
        opened.truncate(1)
    code = life.wait()
    file.write_bytes(whole)
    check(code in (0, 1), f"it ended with {code}: {life.output}")
    check("Traceback" not in life.output and "HELIX_DEBUG" not in life.output, f"it broke: {life.output}")
    if code:
        succeeded(helix("train", "--resume", begun(runs)))
    compare(begun(runs), drill.whole)
    return f"{changed} sizes were refused before a resume and nothing was lost, one file shrank under a training"


def damaged_manifests(drill):
    flips, run = 60, drill.killed_run("manifests")
    newest = sorted((run / "checkpoints").glob("step-*"))[-1]
    file = newest / "manifest.json"
    whole = file.read_bytes()

    def damage():
        for _ in range(flips):
            place, bit = drill.random.randrange(len(whole)), drill.random.randrange(8)
            file.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << bit)]) + whole[place + 1 :])
            yield f"bit {bit} of byte {place}"
        facts = json.loads(whole)
        for key, value in (("step", 55), ("step", -3), ("step", float("inf")), ("version", 99), ("files", {})):
            file.write_text(json.dumps({**facts, key: value}))
            yield f"{key} = {value}"
        file.unlink()
        yield "no manifest"

    def work():
        from helix_core.cli.main import main

        for what in damage():
            if main(["train", "--resume", str(run)]) != 1:
                print(f"{what} was taken")
                return 1
        return 0

    before = _contents(run, but="manifest.json")
    life = start(work)
    succeeded(life)
    check(_contents(run, but="manifest.json") == before, "a refusal changed the run")
    check(life.output.count("error: ") == flips + 6, f"not every damage was named: {life.output[-2000:]}")
    older = sorted((run / "checkpoints").glob("step-*"))[-2]
    succeeded(helix("train", "--resume", older))
    compare(run, drill.whole)
    check((run / "set-aside-1" / "checkpoints" / newest.name).is_dir(), "the damaged checkpoint was not set aside")
    return f"{flips} flipped bits and 6 other damages were refused, the run went on from the checkpoint before"


def poison(drill):
    runs = drill.fresh("poison")
    diverging = ["--set", "optimizer.lr=1e38", "--set", "training.checkpoint_every=1"]
    refused(helix("train", drill.recipe, "--runs", runs, *diverging), 1, "lower optimizer.lr")
    check(not list(runs.rglob("step-*")), "a poisoned checkpoint was saved")
    for line in (begun(runs) / "metrics.jsonl").read_text().splitlines():
        check("NaN" not in line and "Infinity" not in line, f"this is no JSON: {line}")
    return "a training that overflowed saved nothing and said why"


def _contents(folder, but=".lock"):
    """The files below a folder, but for locks that killed processes left and those of a name."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name not in (but, ".lock")}


CASES = (undisturbed, kills, two_writers, two_memories, full_disk, shrunk_data, damaged_manifests, poison)
