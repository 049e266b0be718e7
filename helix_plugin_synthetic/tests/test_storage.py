"""Datasets on disk: the same bytes from any number of workers and interruptions, and nothing half-written."""

import errno
import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from helix_core.cli.main import cli
from helix_core.errors import ConfigError, DataError, UsageError
from helix_core.kinds.generator import digest
from helix_plugin_synthetic.storage import FORMATS, Plan, open_dataset, write, write_dataset


def plan(name="pcfg", n=25, **rest):
    return Plan.of(name, {"seq_len": 20}, **{"seed": 3, "n": n, "shard_size": 10, **rest})


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("fmt", FORMATS)
def test_what_is_read_is_what_was_generated(tmp_path, fmt):
    """`pcfg` has fields of fixed and of varying length."""
    made = plan(format=fmt, start=5)
    write_dataset(made, tmp_path)
    dataset = open_dataset(tmp_path)
    generator = made.make()
    assert len(dataset) == 25
    assert digest(dataset) == digest(generator.sample(3, 5 + i) for i in range(25))
    assert sorted(files(tmp_path)) == ["manifest.json", *(f"part-0000{k}.{FORMATS[fmt][2]}" for k in range(3))]


def test_the_bytes_do_not_depend_on_workers(tmp_path):
    for workers in (1, 2):
        write_dataset(plan(), tmp_path / str(workers), workers=workers)
    assert files(tmp_path / "1") == files(tmp_path / "2")


def test_an_interrupted_job_goes_on(tmp_path, monkeypatch):
    write_dataset(plan(), tmp_path / "whole")
    original, calls = write.write_shard, []

    def stops(*args):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(args[-1])
        return original(*args)

    monkeypatch.setattr(write, "write_shard", stops)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(plan(), tmp_path / "a")
    with pytest.raises(UsageError, match="not finished"):
        open_dataset(tmp_path / "a")
    (tmp_path / "a" / ".writing-part-00002.parquet-99").write_bytes(b"half")
    with (tmp_path / "a" / "finished.jsonl").open("a") as log:
        log.write('{"shard": 2, "fi')  # cut off by the kill
    calls.clear()
    write_dataset(plan(), tmp_path / "a")
    assert calls == [2]
    assert files(tmp_path / "a") == files(tmp_path / "whole")


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    original, done = write.write_file, []

    def full(path, data):
        if path.name.startswith("part-00001"):
            raise OSError(errno.ENOSPC, "No space left on device")
        done.append(path.name)
        original(path, data)

    monkeypatch.setattr(write, "write_file", full)
    with pytest.raises(DataError, match=r"No space left on device\n.*give the same command again"):
        write_dataset(plan(), tmp_path / "a")
    assert "part-00000.parquet" in done
    monkeypatch.undo()
    seen = []
    write_dataset(plan(), tmp_path / "a", progress=seen.append)
    assert sum(seen) == 25
    assert digest(open_dataset(tmp_path / "a")) == digest(plan().make().sample(3, i) for i in range(25))


def test_a_whole_dataset_is_left_as_it_is(tmp_path):
    write_dataset(plan(), tmp_path)
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("part-*")}
    write_dataset(plan(), tmp_path)
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("part-*")} == before


def test_damage_is_found_and_mended(tmp_path):
    write_dataset(plan(), tmp_path)
    whole = files(tmp_path)
    part = tmp_path / "part-00001.parquet"
    for damage in (whole[part.name][:-7], whole[part.name][:-1] + b"x"):
        part.write_bytes(damage)
        with pytest.raises(DataError, match="damaged"):
            list(open_dataset(tmp_path))
        write_dataset(plan(), tmp_path)
        assert files(tmp_path) == whole
    part.unlink()
    with pytest.raises(DataError, match="cannot read"):
        list(open_dataset(tmp_path))


@pytest.mark.parametrize("other", [{"seed": 4}, {"n": 26}, {"format": "arrow"}, {"shard_size": 5}])
def test_another_dataset_is_not_overwritten(tmp_path, other):
    write_dataset(plan(), tmp_path)
    before = files(tmp_path)
    with pytest.raises(UsageError, match=f"holds another dataset: {next(iter(other))} is"):
        write_dataset(plan(**other), tmp_path)
    assert files(tmp_path) == before


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(UsageError, match=r"not empty and holds no dataset: thesis\.tex"):
        write_dataset(plan(), tmp_path)
    assert files(tmp_path) == {"thesis.tex": b"years"}
    with pytest.raises(UsageError, match="is not a dataset"):
        open_dataset(tmp_path)


def test_a_damaged_plan_is_no_licence_to_overwrite(tmp_path):
    (tmp_path / "plan.json").write_text('{"generator": ')
    with pytest.raises(UsageError, match="is damaged"):
        write_dataset(plan(), tmp_path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n": 0}, "n >= 1"),
        ({"format": "csv"}, "parquet, arrow"),
        ({"seed": -1}, "lie in"),
        ({"shard_size": 0}, "n >= 1"),
    ],
)
def test_plans_that_cannot_be(wrong, message):
    with pytest.raises(UsageError, match=message):
        plan(**wrong)


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        write_dataset(plan(), tmp_path / "x")


def run(*args):
    return CliRunner().invoke(cli, ["data", *map(str, args)], catch_exceptions=False)


def test_the_command(tmp_path):
    done = run("generate", "listops", "--out", tmp_path / "a", "-n", 30, "--seed", 4, "--set", "seq_len=40", "--json")
    manifest = json.loads(done.stdout)
    assert manifest["plan"]["options"]["seq_len"] == 40
    assert manifest["plan"]["options"]["max_args"] == 5, "defaults are written out"
    again = run("generate", "synthetic/listops", "--out", tmp_path / "b", "-n", 30, "--seed", 4, "--set", "seq_len=40")
    assert manifest["content"] in again.stdout
    assert files(tmp_path / "a") == files(tmp_path / "b")
    with pytest.raises(ConfigError, match="did you mean 'seq_len'"):
        run("generate", "listops", "--out", tmp_path / "c", "-n", 3, "--set", "seqlen=40")
    assert not (tmp_path / "c").exists()


def test_pandas_and_polars_style_readers_see_plain_lists(tmp_path):
    write_dataset(plan(), tmp_path)
    table = pq.read_table(tmp_path / "part-00000.parquet")
    sample = plan().make().sample(3, 0)
    assert table["inputs"][0].as_py() == sample["inputs"].tolist()
    assert table["rules"][0].as_py() == sample["rules"].tolist()


def test_a_disk_that_is_really_full(tmp_path):
    """Not simulated: a file larger than its limit, in a process of its own."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
        "from helix_core.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    job = ["data", "generate", "zipf", "--out", str(tmp_path / "a"), "-n", "60", "--shard-size", "20"]
    done = subprocess.run([sys.executable, "-c", code, *job], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "cannot write the dataset" in done.stderr
    assert not list((tmp_path / "a").glob("part-*"))
    assert run(*job[1:]).exit_code == 0
    assert len(list(open_dataset(tmp_path / "a"))) == 60
    assert np.array_equal(next(iter(open_dataset(tmp_path / "a")))["mask"], np.ones(256, bool))
