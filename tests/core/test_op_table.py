"""Binding: who is chosen, who is refused and why, pins, broken kernels."""

import dataclasses
import functools
import inspect

import numpy as np
import pytest

from helix_core.errors import ComponentNotFound, ComponentUnavailable, UsageError
from helix_core.ops import OPS, DispatchKey, as_op, bind_ops
from helix_core.ops.table import REFERENCE
from helix_core.ops.typed import TypedOps
from helix_core.plugin_system import create
from helix_core.plugin_system.descriptors import KernelDescriptor

KEY = DispatchKey("numpy", "cpu", "float32", "infer")


def silu(x):
    return "mine"


def kernel(name="k", target="test_op_table:silu", **options):
    return "p", KernelDescriptor(name=name, op="silu", target=target, summary="", namespace="numpy", **options)


def bind(*kernels, key=KEY, pins=None):
    return bind_ops(np, key, kernels, wrap=lambda op, descriptor, k: k, asarray=np.asarray, pins=pins)


def test_without_kernels_every_op_is_its_reference():
    F = bind()
    assert {choice.chosen for choice in F.trail.values()} == {REFERENCE}
    assert set(F.trail) == set(OPS)
    x = np.array([-1.0, 2.0])
    assert np.allclose(F.silu(x), x / (1 + np.exp(-x)))


def test_the_highest_priority_that_fits_wins_and_ties_go_by_name():
    F = bind(kernel("low"), kernel("high", priority=5), kernel("other", priority=9, devices=("cuda",)))
    assert F.trail["silu"].chosen == "p/high"
    assert F.silu(1) == "mine"
    assert {r.kernel: r.reason for r in F.trail["silu"].refused} == {"p/other": "runs on cuda, not cpu"}
    assert bind(kernel("b"), kernel("a")).trail["silu"].chosen == "p/a"


@pytest.mark.parametrize(
    ("options", "key", "reason"),
    [
        ({"dtypes": ("float64",)}, KEY, "takes float64, not float32"),
        ({}, DispatchKey("torch", "cpu", "float32", "infer"), "works on numpy arrays, not torch"),
        ({}, DispatchKey("numpy", "cpu", "float32", "train"), "has no gradient (inference only)"),
        ({"requires": ("no-such-package>=3",)}, KEY, "needs no-such-package>=3, not installed"),
        ({"supports": "test_op_table:never"}, KEY, "not on a Tuesday"),
        ({"supports": "test_op_table:absent"}, KEY, "its supports() failed: AttributeError"),
    ],
)
def test_each_refusal_says_why(options, key, reason):
    choice = bind(kernel(**options), key=key).trail["silu"]
    assert choice.chosen == REFERENCE
    assert choice.reason == "no kernel fits"
    assert choice.refused[0].reason.startswith(reason)


def never(key):
    return "not on a Tuesday"


def test_a_broken_kernel_warns_and_the_next_one_serves():
    broken = kernel("broken", target="no_such_module:silu", priority=9)
    with pytest.warns(RuntimeWarning, match=r"kernel p/broken of op silu is broken: ModuleNotFoundError"):
        F = bind(broken, kernel("sound"))
    assert F.trail["silu"].chosen == "p/sound"


def test_a_pin_is_exact_and_never_falls_back():
    assert bind(kernel("a"), kernel("b"), pins={"silu": "p/b"}).trail["silu"].chosen == "p/b"
    assert bind(kernel("a"), kernel("b"), pins={"silu": "b"}).trail["silu"].chosen == "p/b"
    assert bind(kernel("a"), pins={"silu": REFERENCE}).trail["silu"].chosen == REFERENCE
    with pytest.raises(ComponentNotFound, match="'silu' is pinned to kernel 'p/z'"):
        bind(kernel("a"), pins={"silu": "p/z"})
    with pytest.raises(ComponentUnavailable, match="takes float64, not float32"):
        bind(kernel("a", dtypes=("float64",)), kernel("b"), pins={"silu": "p/a"})
    with pytest.raises(ComponentUnavailable, match="broken: ModuleNotFoundError"):
        bind(kernel("a", target="no_such_module:silu"), kernel("b"), pins={"silu": "p/a"})


def test_pins_and_kernels_of_ops_that_there_are_not():
    with pytest.raises(ComponentNotFound, match=r"op 'sliu', which there is not; did you mean 'silu'\?"):
        bind(pins={"sliu": REFERENCE})
    reference = create("backend", "core/reference")
    with pytest.raises(ComponentNotFound, match="'sliu'"):
        reference.bind(pins={"sliu": REFERENCE})
    with pytest.raises(ComponentNotFound, match="'silu' is pinned to kernel 'p/k'"):
        reference.bind(pins={"silu": "p/k"})
    stray = KernelDescriptor(name="k", op="sliu", target="test_op_table:silu", summary="", namespace="numpy")
    with pytest.warns(RuntimeWarning, match=r"kernel p/k is for an op 'sliu', which there is not; did you mean 'silu'"):
        assert bind(("p", stray)).trail["silu"].chosen == REFERENCE


def everything(*arrays, **attrs):
    return arrays, attrs


def test_a_kernel_gets_every_array_by_position_and_every_attribute_by_keyword():
    descriptor = KernelDescriptor(
        name="k", op="selective_scan", target="test_op_table:everything", summary="", namespace="numpy"
    )
    F = bind(("p", descriptor))
    arrays, attrs = F.selective_scan(1, 2, C=5, A=3, B=4, reset=10)
    assert arrays == (1, 2, 3, 4, 5, None, None, None, None, 10, None)
    assert attrs == {"delta_softplus": False}
    with pytest.raises(TypeError, match=r"^selective_scan\(\) got an unexpected keyword argument 'rest'"):
        F.selective_scan(1, 2, 3, 4, 5, rest=10)
    assert F.selective_scan.__doc__ == OPS["selective_scan"].reference.__doc__


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_an_op_has_the_signature_of_its_reference(op):
    _, *declared = inspect.signature(op.reference).parameters.values()
    bound = inspect.signature(as_op(op, everything)).parameters.values()
    assert [(p.name, p.kind, p.default) for p in bound] == [(p.name, p.kind, p.default) for p in declared]


def test_a_function_that_has_the_signature_is_not_wrapped_again():
    named = as_op(OPS["silu"], silu)
    assert as_op(OPS["silu"], named) is named

    @functools.wraps(named)
    def around(*arrays, **attrs):
        return named(*arrays)

    with pytest.raises(TypeError, match="'x_'"):
        as_op(OPS["silu"], around)(1, x_=2)


def test_an_unknown_op_names_the_known_ones():
    with pytest.raises(AttributeError, match=r"no op 'rmsnorm'.*rms_norm"):
        bind().rmsnorm  # noqa: B018


def test_one_of_two_branches_and_both_where_a_compiler_traces():
    F = create("backend", "core/reference").bind()
    calls = []

    def branch(name, value):
        return lambda: (calls.append(name), {"x": np.array([value])})[1]

    assert F.cond(np.array(True), branch("then", 1), branch("otherwise", 2))["x"] == [1]
    assert F.cond(np.array(False), branch("then", 1), branch("otherwise", 2))["x"] == [2]
    assert calls == ["then", "otherwise"]

    class Traced(np.ndarray):
        def __int__(self):
            raise ValueError("a compiler traces")

    for holds, expected in ((True, 1), (False, 2)):
        assert F.cond(np.array(holds).view(Traced), branch("then", 1), branch("otherwise", 2))["x"] == [expected]
    assert len(calls) == 6


def test_a_kernel_for_an_op_that_there_is_not_warns_and_names_the_near_miss():
    plugin, descriptor = kernel("k")
    with pytest.warns(RuntimeWarning, match=r"p/k is for an op 'slu', which there is not; did you mean 'silu'\?"):
        F = bind((plugin, dataclasses.replace(descriptor, op="slu")))
    assert F.trail["silu"].chosen == REFERENCE


def test_pins_of_what_is_not_there_name_the_near_miss():
    with pytest.raises(ComponentNotFound, match=r"pinned for an op 'slu', which there is not; did you mean 'silu'\?"):
        bind(pins={"slu": "p/k"})
    with pytest.raises(ComponentNotFound, match=r"pinned to kernel 'p/kk'.*did you mean 'p/k'\?"):
        bind(kernel("k"), pins={"silu": "p/kk"})


@pytest.mark.parametrize("target", ["test_op_table:exits", "test_op_table:no_such"])
def test_a_supports_that_exits_is_a_refusal(target):
    (refusal,) = bind(kernel("k", supports=target)).trail["silu"].refused
    assert refusal.reason.startswith("its supports() failed")


def exits(key):
    raise SystemExit(3)


def test_settings_know_the_names_of_all_ops():
    from helix_core.op_names import OP_NAMES

    assert tuple(sorted(OPS)) == OP_NAMES


def test_type_checkers_see_the_ops_of_the_table():
    declared = {name: value.__func__ for name, value in vars(TypedOps).items() if isinstance(value, staticmethod)}
    assert declared == {op.name: op.reference for op in OPS.values()}


def test_a_wrong_call_of_an_op_is_a_type_error(tmp_path):
    api = pytest.importorskip("mypy.api")
    source = tmp_path / "calls.py"
    source.write_text(
        "from helix_core.ops.table import OpTable\n\n"
        "def f(F: OpTable, x: object) -> None:\n"
        "    F.rms_norm(x, x, eps=1e-6)\n"
        "    F.rms_norm(x)\n"
        "    F.rms_norm(x, x, epsilon=1e-6)\n"
        "    F.rms_nrm(x, x)\n"
    )
    report, _, _ = api.run([str(source), "--strict", "--cache-dir", str(tmp_path)])
    assert [int(line.split(":")[1]) for line in report.splitlines() if ": error: " in line] == [5, 6, 7]


def test_an_op_shows_the_signature_and_text_of_its_reference():
    F = bind()
    assert set(OPS) <= set(dir(F))
    for op in OPS.values():
        bound = getattr(F, op.name)
        _, *parameters = inspect.signature(op.reference).parameters.values()
        assert list(inspect.signature(bound).parameters.values()) == parameters
        assert inspect.getdoc(bound) == inspect.getdoc(op.reference)


def test_a_table_with_other_functions():
    F = bind()
    twice = F.replace(silu=lambda x: 2 * x, zeros=lambda *shape: np.full(shape, -0.0))
    assert twice.silu(x=np.ones(1)) == 2
    assert np.signbit(twice.zeros(1))
    assert F.silu(np.ones(1)) < 1, "the table that it was made of is as before"
    assert twice.dispatch_key == F.dispatch_key
    with pytest.raises(UsageError, match=r"no 'sliu' to replace.*'silu'"):
        F.replace(sliu=np.sin)
