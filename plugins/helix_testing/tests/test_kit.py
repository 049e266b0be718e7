"""The kit finds what is wrong, and passes what is right; and its pytest plugin works from anywhere."""

import inspect
import json
import subprocess
import sys

import pytest
import wrong_components

from helix_core.ops import OPS
from helix_core.plugin_system import Registry, create, use_registry
from helix_core.plugin_system.settings import Settings
from helix_testing import BaseLayerTests, BaseOptimizerTests
from helix_testing.layer_case import Case
from helix_testing.levels.compile import CompileLevel
from helix_testing.levels.grad import GradLevel, check_gradient
from helix_testing.levels.ops import OpsLevel, check_values

LAYERS = (
    "Right",
    "IgnoresReset",
    "IgnoresLengths",
    "NotCausal",
    "ForgetsState",
    "DoesNotMixTime",
    "MixesRows",
)
LAYERS += ("DeadParameter", "WritesState", "Remembers", "HandsOnInput", "SwallowsNaN", "SpreadsNaN", "Widens")
LAYERS += ("WidensState", "OtherOnTorch")
OPTIMIZERS = {
    "Coupled": "test_decay_is_decoupled_and_goes_where_it_should",
    "IgnoresRate": "test_a_rate_of_zero_moves_nothing",
    "WidensOptimizer": "test_dtypes_stay_as_they_are",
    "KeepsGradient": "test_what_it_keeps_is_its_own",
    "DonatedDiffers": "test_a_step_that_may_write_over_its_inputs_is_the_same",
    "ByPlace": "test_the_order_of_parameters_does_not_matter",
    "ChangesShape": "test_its_state_stays_one_of_its_slots",
    "Counts": "test_it_resumes_bit_by_bit",
    "MatricesStandStill": "test_it_converges_on_a_quadratic",
}
BACKENDS = ("SiluOff", "WritesInputs", "Boastful", "WrongGradient", "Bakes", "AddsUp")


@pytest.fixture
def wrong(site):
    """Everything installed, and the wrong components besides."""

    def names(kinds, cls, config):
        rows = [f"{cls}(name={n.lower()!r}, target='wrong_components:{n}', summary='', {config})" for n in kinds]
        return f"[{', '.join(rows)}]"

    provides = {n: tuple(getattr(wrong_components, n).capabilities) for n in BACKENDS}
    backends = ", ".join(
        f"BackendDescriptor(name={getattr(wrong_components, n).name!r}, target='wrong_components:{n}', summary='x',"
        f" provides={provides[n]!r})"
        for n in BACKENDS
    )
    layer_config = "config='helix_core.kinds.layer:LayerConfig'"
    optimizer_config = "config='wrong_components:CoupledConfig'"
    site.plugin(
        "wrong",
        f"""
        @hookimpl
        def helix_layers():
            return {names(LAYERS, "LayerDescriptor", layer_config)}

        @hookimpl
        def helix_optimizers():
            return {names(["Plain", *OPTIMIZERS], "OptimizerDescriptor", optimizer_config)}

        @hookimpl
        def helix_backends():
            return [{backends}]
        """,
    )
    with use_registry(Registry(Settings())) as registry:
        yield registry


class Layers(BaseLayerTests):
    """The layer kit's tests as plain methods."""

    __test__ = False


def layer_checks(name, rng):
    """Which of the layer kit's tests fail for a wrong layer on the reference and on the cpu backend."""
    failed = set()
    for backend in ("core/reference", "cpu/cpu"):
        case = Case(f"wrong/{name}", {"d_model": 6}, backend)
        x = rng.normal(size=(3, 70, 6))
        checks = {
            "faces": lambda case=case, x=x: Layers().test_step_by_step_equals_all_at_once(case, x),
            "chunks": lambda case=case, x=x: Layers().test_prefill_in_ragged_chunks_and_then_steps(case, x),
            "causal": lambda case=case, x=x: Layers().test_the_future_does_not_reach_the_past(case, x, rng),
            "mixing": lambda case=case, x=x: Layers().test_the_past_reaches_the_future(case, x),
            "rows": lambda case=case, x=x: Layers().test_rows_do_not_mix(case, x),
            "padding": lambda case=case, x=x: Layers().test_right_padding_changes_nothing(case, x, rng),
            "packing": lambda case=case, x=x: Layers().test_packed_documents_do_not_leak(case, x, True),
            "together": lambda case=case, x=x: Layers().test_packing_padding_and_chunks_together(case, x),
            "masks": lambda case=case: Layers().test_masked_tokens_are_as_if_not_there(case, rng, "left"),
            "apart": lambda case=case, x=x: Layers().test_it_writes_to_nothing_and_remembers_nothing(case, x),
            "dtypes": lambda case=case, x=x: Layers().test_dtypes_stay_as_they_are(case, x),
            "nan": lambda case=case, x=x: Layers().test_nan_comes_out_where_it_counts(case, x, rng),
            "oracle": lambda case=case, x=x: Layers().test_it_computes_what_the_references_do(case, x),
        }
        if backend == "cpu/cpu":
            checks["gradient"] = lambda case=case, x=x: Layers().test_every_parameter_has_the_gradient_of_the_function(
                case, x, rng
            )
        for label, check in checks.items():
            try:
                check()
            except (AssertionError, RuntimeError, TypeError):  # kernels refuse what is of another dtype
                failed.add(label)
    return failed


@pytest.mark.parametrize(
    ("name", "found_by"),
    [
        ("right", set()),
        ("ignoresreset", {"packing", "together"}),
        ("ignoreslengths", {"padding", "together", "masks"}),
        ("notcausal", {"causal", "faces", "chunks"}),
        ("forgetsstate", {"faces", "chunks", "together"}),
        ("doesnotmixtime", {"mixing"}),
        ("mixesrows", {"rows"}),
        ("deadparameter", {"gradient"}),
        ("writesstate", {"apart"}),
        ("remembers", {"apart"}),
        ("handsoninput", {"apart"}),
        ("swallowsnan", {"nan"}),
        ("spreadsnan", {"nan"}),
        ("widens", {"dtypes"}),
        ("widensstate", {"dtypes"}),
        ("otherontorch", {"oracle"}),
    ],
)
def test_each_fault_of_a_layer_is_found(wrong, rng, name, found_by):
    failed = layer_checks(name, rng)
    assert found_by <= failed
    if not found_by:
        assert not failed


def test_coupled_decay_is_found(wrong, rng):
    class Kit(BaseOptimizerTests):
        __test__ = False
        optimizer = "wrong/coupled"

    with pytest.raises(AssertionError):
        Kit().test_decay_is_decoupled_and_goes_where_it_should(rng)
    with pytest.raises(AssertionError):
        Kit().test_decay_does_not_pass_through_the_moments(rng)
    Kit().test_it_converges_on_a_quadratic(rng)


def optimizer_failures(name, rng):
    """Which of the optimizer kit's tests fail."""
    kit = type("Kit", (BaseOptimizerTests,), {"optimizer": f"wrong/{name.lower()}"})()
    failed = set()
    for label in (label for label in dir(kit) if label.startswith("test_")):
        test = getattr(kit, label)
        wanted = inspect.signature(test).parameters
        for dtype in ("float32", "float64") if "dtype" in wanted else (None,):
            given = {"rng": rng} if "rng" in wanted else {}
            try:
                test(**given, **({"dtype": dtype} if dtype else {}))
            except AssertionError:
                failed.add(label)
    return failed


def test_a_right_optimizer_passes(wrong, rng):
    assert optimizer_failures("Plain", rng) == set()


@pytest.mark.parametrize(("name", "found_by"), OPTIMIZERS.items())
def test_each_fault_of_an_optimizer_is_found(wrong, rng, name, found_by):
    assert found_by in optimizer_failures(name, rng)


def test_a_wrong_value_is_found(wrong, rng):
    backend = create("backend", "silu-off")
    sample = next(iter(OPS["silu"].samples(rng)))
    with pytest.raises(AssertionError, match=r"silu .* is off by 1\.0"):
        check_values(backend, backend.bind(), OPS["silu"], sample, "float32")


def test_writing_to_an_input_is_found(wrong, rng):
    with pytest.raises(AssertionError, match=r"softmax .*: it wrote to x"):
        OpsLevel().test_op_repeats_bit_by_bit_and_leaves_its_inputs(create("backend", "writes-inputs"), "softmax", rng)


def test_a_wrong_gradient_is_found(wrong, rng):
    backend = create("backend", "wrong-gradient")
    sample = next(iter(OPS["rms_norm"].samples(rng)))
    with pytest.raises(AssertionError, match="d/dx is off by"):
        check_gradient(backend, backend.bind(dtype="float64"), OPS["rms_norm"], sample, "float64", rng)


def test_parameters_baked_into_compiled_code_are_found(wrong, rng):
    with pytest.raises(AssertionError, match="compiled, other parameters"):
        CompileLevel().test_compiled_equals_eager(create("backend", "bakes"), rng)


def test_gradients_that_are_added_up_are_found(wrong):
    with pytest.raises(AssertionError):
        GradLevel().test_a_gradient_asked_for_twice_is_the_same(create("backend", "adds-up"))


def test_a_capability_that_is_not_there_is_found(wrong, rng):
    backend = create("backend", "boastful")
    sample = next(iter(OPS["linear"].samples(rng)))
    with pytest.raises(Exception, match="does not differentiate"):
        check_gradient(backend, backend.bind(dtype="float64"), OPS["linear"], sample, "float64", rng)


def run_pytest(*args, cwd):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)


def test_the_suite_runs_from_an_empty_folder_and_reports(tmp_path):
    report = tmp_path / "report.json"
    done = run_pytest("--helix-backend=reference", f"--helix-report={report}", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    levels = json.loads(report.read_text())["reference"]
    assert levels == {
        "descriptor": "passed",
        "basic": "passed",
        "ops": "passed",
        "grad": "not implemented",
        "train": "not implemented",
        "compile": "not implemented",
    }


def test_paths_given_besides_are_run_too_and_others_are_not(tmp_path):
    (tmp_path / "test_mine.py").write_text("def test_mine():\n    pass\n")
    assert "test_mine" not in run_pytest("--helix-backend=reference", "--co", cwd=tmp_path).stdout
    both = run_pytest("--helix-backend=reference", "--co", "test_mine.py", cwd=tmp_path)
    assert "test_mine" in both.stdout
    assert "test_it_is_found" in both.stdout


@pytest.mark.parametrize(("name", "words"), [("refrence", "did you mean 'reference'"), ("abacus", "no backend named")])
def test_an_unknown_backend_is_a_usage_error(tmp_path, name, words):
    done = run_pytest(f"--helix-backend={name}", cwd=tmp_path)
    assert done.returncode == 4
    assert words in done.stderr + done.stdout


def test_a_seed_repeats_the_inputs(tmp_path):
    (tmp_path / "test_seed.py").write_text("def test_seed(rng):\n    assert rng.integers(10**9) == 0\n")

    def drawn(seed):
        lines = run_pytest(f"--helix-seed={seed}", cwd=tmp_path).stdout.splitlines()
        return next(line for line in lines if line.startswith("E") and "== 0" in line)

    assert drawn(1) == drawn(1) != drawn(2)


def test_the_plugin_costs_a_pytest_run_nothing(tmp_path):
    (tmp_path / "test_light.py").write_text(
        "import sys\ndef test_light():\n    assert not {'numpy', 'torch', 'pydantic', 'numba'} & set(sys.modules)\n"
    )
    done = run_pytest(cwd=tmp_path)
    assert done.returncode == 0, done.stdout
