"""Recording a step: arrays that note what is done with them.

The model's own `apply` runs once on these arrays and on the real parameters. What involves parameters only is computed
then and there; everything else becomes an instruction on memory that is allotted now and used for every token. Views
stay views. An op without an instruction of its own is called from Python between native ones.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from helix_core.ops import OPS, Op
from helix_core.ops.table import REFERENCE
from helix_plugin_cpu.decode.program import Call, Instruction
from helix_plugin_cpu.decode.weights import Weight, store_weight
from helix_plugin_cpu.kernels._arguments import zeros


class Unrecordable(Exception):
    """The step cannot be recorded; the message says why. `decoder` catches it and decodes plainly."""


class Stale(Exception):
    """A state was read after it had been overwritten in place. The decoder catches it and records without that."""


class _Memory:
    """A block of memory; when nothing recorded uses it any more, later instructions may."""

    __slots__ = ("__weakref__", "block", "stale", "version")

    def __init__(self, block: Tensor, version: int) -> None:
        self.block, self.version, self.stale = block, version, False


class Recorder:
    """Instructions so far, and the memory they work on.

    lower     what turns an op or a function of the namespace into instructions, by its name
    weights   format of matrices
    in_place  write states where they were; not possible if a model reads one after its update
    """

    def __init__(
        self,
        xp: Any,
        F: Any,
        *,
        lower: Mapping[str, Callable[..., Any]],
        batch: int,
        weights: str,
        in_place: bool,
    ) -> None:
        self.xp, self.F, self.batch, self.weights, self.in_place = xp, F, batch, weights, in_place
        self._lower = lower
        self.steps: list[Instruction | Call] = []
        self.keep: list[Tensor] = []
        self.scratch = 64
        self.states: set[int] = set()  # where the model's states start
        self.contents: dict[tuple[int, int, int], int] = {}
        self.tokens = 0  # where the step's tokens are
        self._free: dict[int, list[Tensor]] = {}
        self._versions = 0
        self.stored: dict[tuple[Any, ...], Weight] = {}

    def array(self, value: Tensor, memory: _Memory | None = None) -> Recorded:
        """Note an array on memory of its own, or a view of some."""
        if memory is None:
            self._versions += 1
            memory = _Memory(value, self._versions)
        return Recorded(self, value, memory)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Recorded:
        """Fresh memory, or some that is no longer needed."""
        count = 1
        for size in shape:
            count *= int(size)
        size = max(64, -(-count * dtype.itemsize // 64) * 64)
        free = self._free.setdefault(size, [])
        if free:
            block = free.pop()
        else:
            # A cache line of padding: the kernels like aligned rows.
            space = zeros(size + 64, dtype=torch.uint8)
            block = space[-space.data_ptr() % 64 :][:size]
            self.keep.append(block)
        self._versions += 1
        memory = _Memory(block, self._versions)
        weakref.finalize(memory, free.append, block)
        return Recorded(self, block[: count * dtype.itemsize].view(dtype).reshape(shape), memory)

    def constant(self, value: Tensor) -> Tensor:
        """Keep an array whose address an instruction holds."""
        self.keep.append(value)
        return value

    def parameter(self, value: Tensor | None) -> Tensor | None:
        """The same for an optional parameter, which instructions read in one piece."""
        return None if value is None else self.constant(value.contiguous())

    def reserve(self, size: int) -> None:
        """See to it that each thread has so many bytes of scratch."""
        self.scratch = max(self.scratch, size)

    def weight(self, value: Tensor) -> Weight:
        """A matrix in the format asked for; one that is used twice is stored once."""
        key = (value.data_ptr(), tuple(value.shape), value.stride())
        if key not in self.stored:
            self.stored[key] = store_weight(value, self.weights)
            self.keep.append(self.stored[key].data)
        return self.stored[key]

    def apply(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An op or a function of the namespace, on at least one recorded array."""
        lower = self._lower.get(name)
        result = None if lower is None else lower(self, *args, **kwargs)
        if result is None and name in OPS and self.F.trail[name].chosen == REFERENCE:
            result = self.compose(OPS[name], args, kwargs)
        return self.call(name, function, args, kwargs) if result is None else result

    def compose(self, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An op without a kernel by what its reference does, if all of that has instructions; else None."""
        before = len(self.steps)
        try:
            result = op.reference(RecordingNamespace(self), *args, **kwargs)
        except Unrecordable:
            result = None
        if result is None or any(isinstance(step, Call) for step in self.steps[before:]):
            del self.steps[before:]
            return None
        return result

    def call(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call it now to see what it returns: a view of an array is noted as such, anything else as a call."""
        memories: dict[int, _Memory] = {}

        def plain(value: Any) -> Any:
            if isinstance(value, Recorded):
                memories[value.value.untyped_storage().data_ptr()] = value.memory
                return value.value
            if isinstance(value, list | tuple):
                return type(value)(plain(v) for v in value)
            return value

        real, named = plain(args), {k: plain(v) for k, v in kwargs.items()}
        returned = function(*real, **named)
        several = isinstance(returned, list | tuple)
        values = list(returned) if several else [returned]
        if not all(isinstance(v, Tensor) for v in values):
            if not any(isinstance(v, Tensor) for v in values):
                return returned
            raise Unrecordable(f"{name} returns more than arrays")
        views = [memories.get(v.untyped_storage().data_ptr()) for v in values]
        if all(v is not None for v in views):
            results = [self.array(v, m) for v, m in zip(values, views, strict=True)]
        else:
            results = [self.empty(tuple(v.shape), v.dtype) for v in values]
            for result, v in zip(results, values, strict=True):
                result.value.copy_(v)
            self.steps.append(Call(name, function, real, named, [r.value for r in results]))
        return type(returned)(results) if several else results[0]


class Recorded:
    """An array of a recorded step. Its numbers are not known while recording."""

    __array_ufunc__ = None  # NumPy's numbers leave operators to this class
    __slots__ = ("_value", "memory", "recorder")

    def __init__(self, recorder: Recorder, value: Tensor, memory: _Memory) -> None:
        self.recorder, self._value, self.memory = recorder, value, memory

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """torch's own functions, and operators whose left side is a tensor."""
        name = _TORCH_NAMES.get(function.__name__, function.__name__)
        if name.endswith("_") and not name.endswith("__"):
            raise Unrecordable(f"it changes an array in place ({name})")
        return _recorder_of((args, tuple((kwargs or {}).values()))).apply(name, function, args, kwargs or {})

    @property
    def value(self) -> Tensor:
        """Its memory, for instructions. Raises Stale if it was overwritten."""
        if self.memory.stale:
            raise Stale
        return self._value

    @property
    def shape(self) -> torch.Size:
        """The sizes of its axes."""
        return self._value.shape

    @property
    def dtype(self) -> torch.dtype:
        """torch's dtype of its numbers."""
        return self._value.dtype

    @property
    def device(self) -> torch.device:
        """Where its memory is: the CPU."""
        return self._value.device

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return self._value.ndim

    @property
    def T(self) -> Recorded:
        """A view of a matrix, transposed."""
        return self._view(self.value.T)

    @property
    def mT(self) -> Recorded:
        """A view with the last two axes swapped."""
        return self._view(self.value.mT)

    def _view(self, value: Tensor) -> Recorded:
        return Recorded(self.recorder, value, self.memory)

    def __getitem__(self, index: Any) -> Any:
        parts = index if isinstance(index, tuple) else (index,)
        if all(part is None or part is ... or isinstance(part, int | slice) for part in parts):
            return self._view(self.value[index])
        return self.recorder.call("index", lambda x, *i: x[i if isinstance(index, tuple) else i[0]], (self, *parts), {})

    def __setitem__(self, index: Any, value: Any) -> None:
        raise Unrecordable("it assigns to parts of an array")

    def _unknown(self, *args: Any) -> Any:
        raise Unrecordable("its Python code depends on the numbers in an array")

    __bool__ = __int__ = __float__ = __index__ = __complex__ = _unknown
    __hash__ = None  # type: ignore[assignment]

    def __iter__(self) -> Any:
        return (self[i] for i in range(self.shape[0]))

    def __len__(self) -> int:
        return int(self.shape[0])


_TORCH_NAMES = {"mul": "multiply", "sub": "subtract", "div": "divide", "true_divide": "divide", "neg": "negative"}


def _recorder_of(values: Any) -> Any:
    for value in values:
        recorder = _recorder_of(value) if isinstance(value, list | tuple) else getattr(value, "recorder", None)
        if recorder is not None:
            return recorder
    return None


def _operator(method: str, name: str, swapped: bool = False) -> None:
    def operate(self: Recorded, *others: Any) -> Any:
        args = (*others, self) if swapped else (self, *others)
        return self.recorder.apply(name, getattr(self.recorder.xp, name), args, {})

    setattr(Recorded, method, operate)


for _method, _name in (
    ("add", "add"), ("sub", "subtract"), ("mul", "multiply"), ("truediv", "divide"), ("pow", "pow"),
    ("matmul", "matmul"), ("floordiv", "floor_divide"), ("mod", "remainder"), ("and", "bitwise_and"),
    ("or", "bitwise_or"), ("xor", "bitwise_xor"),
):  # fmt: skip
    _operator(f"__{_method}__", _name)
    _operator(f"__r{_method}__", _name, swapped=True)
for _method, _name in (
    ("eq", "equal"), ("ne", "not_equal"), ("lt", "less"), ("le", "less_equal"), ("gt", "greater"),
    ("ge", "greater_equal"), ("neg", "negative"), ("abs", "abs"), ("invert", "bitwise_invert"),
):  # fmt: skip
    _operator(f"__{_method}__", _name)


def _holds_recorded(values: Any) -> bool:
    return any(isinstance(v, Recorded) or (isinstance(v, list | tuple) and _holds_recorded(v)) for v in values)


class RecordingNamespace:
    """The array namespace, noting functions of recorded arrays."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._recorder.xp, name)
        return _noting(self._recorder, name, real) if callable(real) and not isinstance(real, type) else real


class RecordingTable:
    """The op table, noting ops on recorded arrays."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.xp = RecordingNamespace(recorder)

    def check(self, holds: Any, error: Exception) -> None:
        """Nothing: a decoder asks the model for `room` before it steps."""

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._recorder.F, name)
        return _noting(self._recorder, name, real) if name in OPS else real


def _noting(recorder: Recorder, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def function(*args: Any, **kwargs: Any) -> Any:
        if _holds_recorded(args) or _holds_recorded(kwargs.values()):
            return recorder.apply(name, real, args, kwargs)
        return real(*args, **kwargs)

    return function
