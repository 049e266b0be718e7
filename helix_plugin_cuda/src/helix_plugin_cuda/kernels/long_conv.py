"""Long convolution by torch's FFT or on tensor cores (`_monarch`), whichever the card does faster.

Gates, padding and both transposes are in the passes before and after it.

A transform spreads what is no number over a whole row: a zero stands for it there, and NaN takes the place of the
outputs from its step on. Rounding by the size of later inputs stays: see the op.

Rows of several documents go through the op's reference, whose adjoint is that of the rows read backwards.

B sequences, L positions, D channels, K taps of the filter, S inputs before the row, n points of a transform.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from helix_core.ops import OPS
from helix_plugin_cuda.kernels._arguments import activation_dtype, ends, like, named, strides
from helix_plugin_cuda.kernels._chunks import limit
from helix_plugin_cuda.kernels._launch import blocks, launch, precision, wide
from helix_plugin_cuda.kernels._monarch import LONGEST, SHORTEST, Transforms
from helix_plugin_cuda.kernels._tune import Way, chosen, size_class
from helix_plugin_torch.arguments import Shape, check, dense, rows
from helix_plugin_torch.backend import namespace

NAMES = ("u", "filter", "pre", "post", "initial_state", "reset", "lengths")
STEPS, CHANNELS = 64, 32
WAYS: tuple[Way, ...] = ({"warps": 0}, {"warps": 4}, {"warps": 8})
"""Without warps by torch's FFT, else on tensor cores."""


@triton.jit
def _place(length, D, STEPS: tl.constexpr, CHANNELS: tl.constexpr):
    """Row, steps and channels of this program."""
    pieces, tiles = tl.cdiv(D, CHANNELS), tl.cdiv(length, STEPS)
    program = wide(tl.program_id(0))
    t = (program // pieces % tiles) * STEPS + tl.arange(0, STEPS)
    return program // (pieces * tiles), t, (program % pieces) * CHANNELS + tl.arange(0, CHANNELS)


@triton.jit
def _gather(
    x, gate, before, lengths, out, lost, L, D, S, n, sxb, sxt, sgb, sgt, STEPS: tl.constexpr, CHANNELS: tl.constexpr
):
    """x * gate (B, L, D) behind what was `before` (B, S, D), then zeros: out (B, D, n) float32.

    lost (B, D), if given, becomes the first step that is no number, for which a zero is stored.
    """
    b, t, d = _place(n, D, STEPS, CHANNELS)
    inside = (d < D)[None, :]
    s = t - S
    real = ((s >= 0) & (s < limit(lengths, b, L)))[:, None] & inside
    v = tl.load(x + b * sxb + s[:, None] * sxt + d[None, :], mask=real, other=0.0).to(tl.float32)
    if gate is not None:
        v *= tl.load(gate + b * sgb + s[:, None] * sgt + d[None, :], mask=real, other=0.0).to(tl.float32)
    if before is not None:
        held = (t < S)[:, None] & inside
        v += tl.load(before + (b * S + t)[:, None] * D + d[None, :], mask=held, other=0.0).to(tl.float32)
    if lost is not None:
        sound = tl.abs(v) < float("inf")
        first = tl.min(tl.where(sound, n, t[:, None]), axis=0)
        tl.atomic_min(lost + b * D + d, first.to(tl.int32), mask=(first < n) & (d < D))
        v = tl.where(sound, v, 0.0)
    tl.store(out + (b * D + d)[None, :] * n + t[:, None], v, mask=(t < n)[:, None] & inside)


@triton.jit
def _scatter(x, gate, lengths, out, lost, L, D, S, n, sgb, sgt, STEPS: tl.constexpr, CHANNELS: tl.constexpr):
    """Steps S .. S+L-1 of x (B, D, n), times a gate, 0 in padding: out (B, L, D); NaN from step `lost` (B, D) on."""
    b, t, d = _place(L, D, STEPS, CHANNELS)
    inside = (t < L)[:, None] & (d < D)[None, :]
    real = (t < limit(lengths, b, L))[:, None] & inside
    v = tl.load(x + (b * D + d)[None, :] * n + (S + t)[:, None], mask=real, other=0.0)
    if lost is not None:
        first = tl.load(lost + b * D + d, mask=d < D, other=n)
        v = tl.where(((S + t)[:, None] >= first[None, :]) & real, float("nan"), v)
    if gate is not None:
        v *= tl.load(gate + b * sgb + t[:, None] * sgt + d[None, :], mask=real, other=0.0).to(tl.float32)
    tl.store(out + (b * L + t)[:, None] * D + d[None, :], v, mask=inside)


def residuals(u: Shape, *rest: Any) -> tuple[Shape, ...]:
    """Nothing: the backward transforms the inputs again."""
    return ()


def forward(*arrays: Tensor | None) -> tuple[Tensor, ...]:
    """The seven inputs of the op, in its order -> y (B, L, D).

    Raises TypeError for float64, ValueError for shapes that do not fit.
    """
    given = _checked(arrays)
    u = given["u"]
    y = torch.empty(u.shape, dtype=activation_dtype(*(given[n] for n in NAMES[:5])), device=u.device)
    if u.shape[1] == 0:
        return (y,)
    if given["reset"] is not None:
        return (y.copy_(OPS["long_conv"].reference(namespace(), *_wide(given))),)
    row_ends = ends(given["lengths"], u.shape[1])

    def run(way: Way) -> Tensor:
        (batch, _, channels), beyond = u.shape, torch.iinfo(torch.int32).max
        lost = torch.full((batch, channels), beyond, dtype=torch.int32, device=u.device)
        return _scattered(_filtered(given, row_ends, way, lost), given["post"], row_ends, given, y, lost)

    return (run(_way("long_conv", given, run)),)


def forward_train(*arrays: Tensor | None) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """`forward`; nothing is kept."""
    return forward(*arrays), ()


def backward(
    grads: tuple[Tensor], arrays: tuple[Tensor | None, ...], saved: tuple[Tensor, ...]
) -> tuple[Tensor | None, ...]:
    """The gradient of y -> one per array; None for absent ones and flags."""
    given = _checked(arrays)
    u, filter, pre, post, initial = (given[name] for name in NAMES[:5])
    dy = rows(grads[0])
    if u.shape[1] == 0:
        return (*(None if (a := given[name]) is None else torch.zeros_like(a) for name in NAMES[:5]), None, None)
    if given["reset"] is not None:
        return (*_backward_documents(given, dy), None, None)
    row_ends = ends(given["lengths"], u.shape[1])

    def run(way: Way) -> tuple[Tensor | None, ...]:
        return _run_backward(given, dy, row_ends, way)

    return (*run(_way("long_conv backward", given, run)), None, None)


def _run_backward(given: dict[str, Any], dy: Tensor, row_ends: Tensor | None, way: Way) -> tuple[Tensor | None, ...]:
    u, filter, pre, post, initial = (given[name] for name in NAMES[:5])
    before = _before(given)
    dtaps, dv, plain = _slopes(given, dy, row_ends, way)
    dfilter = torch.zeros_like(filter)
    dfilter[: dtaps.shape[1]] = dtaps.transpose(0, 1)
    dinitial = None if initial is None else dv[:, :, :before].transpose(1, 2).to(initial.dtype).contiguous()
    return (
        _scattered(dv, pre, row_ends, given, like(u)),
        dfilter,
        None if pre is None else _scattered(dv, u, row_ends, given, like(pre)),
        None if plain is None else _scattered(plain, dy, row_ends, given, like(post)),
        dinitial,
    )


def _filtered(given: dict[str, Any], row_ends: Tensor | None, way: Way, lost: Tensor) -> Tensor:
    """What was before and pre * u, filtered: (B, D, S+L or more); `lost` as `_gather` finds it."""
    n = _length(given)
    if way["warps"]:
        transforms, taps, v = _on_tensor_cores(given, row_ends, way, lost)
        return transforms.convolve(v, transforms.spectrum(taps))
    filtered: Tensor = torch.fft.irfft(_transformed(given, row_ends, n, lost) * _response(given, n), n=n)
    return filtered


def _slopes(
    given: dict[str, Any], dy: Tensor, row_ends: Tensor | None, way: Way
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The gradients of the taps (D, taps) and of the filter's input; its output if `post` needs it."""
    n, before, post = _length(given), _before(given), given["post"]
    count = min(given["filter"].shape[0], before + given["u"].shape[1])
    if way["warps"]:
        transforms, taps, v = _on_tensor_cores(given, row_ends, way)
        spectrum = transforms.spectrum(taps)
        slope = _gathered(dy, post, None, row_ends, before, transforms.length)
        plain = None if post is None else transforms.convolve(v, spectrum)
        return transforms.correlate(v, slope, count), transforms.convolve(slope, spectrum, adjoint=True), plain
    v, response = _transformed(given, row_ends, n), _response(given, n)
    slope = torch.fft.rfft(_gathered(dy, post, None, row_ends, before, n))
    dtaps = torch.fft.irfft((v.conj() * slope).sum(0), n=n)[:, :count]
    dv = torch.fft.irfft(slope * response.conj(), n=n)
    return dtaps, dv, None if post is None else torch.fft.irfft(v * response, n=n)


def _on_tensor_cores(
    given: dict[str, Any], row_ends: Tensor | None, way: Way, lost: Tensor | None = None
) -> tuple[Transforms, Tensor, Tensor]:
    """Transforms, the filters (D, taps), and what they filter (B, D, S+L)."""
    total = _before(given) + given["u"].shape[1]
    taps = given["filter"].detach().float()[:total].transpose(0, 1).contiguous()
    n = max(SHORTEST, _length(given))
    transforms = Transforms(n, total, precision(given["u"], given["filter"]), way["warps"], taps.device)
    v = _gathered(given["u"], given["pre"], given["initial_state"], row_ends, _before(given), total, lost)
    return transforms, taps, v


def _way(kernel: str, given: dict[str, Any], run: Callable[[Way], Any]) -> Way:
    (B, _, D), n = given["u"].shape, _length(given)
    key = (size_class(B), n, size_class(D), given["pre"] is not None, given["post"] is not None, given["u"].dtype)
    return chosen(kernel, key, WAYS if n <= LONGEST else WAYS[:1], run)


def _backward_documents(given: dict[str, Any], dy: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of rows with resets: the reference on the rows read backwards, where starts become ends."""
    u, filter, pre, post, initial, reset, lengths = _wide(given)
    B, L, _ = u.shape
    dy = dy.float()
    if lengths is not None:
        real = (torch.arange(L, dtype=torch.int64, device=u.device) < lengths[:, None])[..., None]
        dy = torch.where(real, dy, 0.0)
        u, pre, post = (None if a is None else torch.where(real, a, 0.0) for a in (u, pre, post))
    v = u if pre is None else u * pre
    slope, before = dy if post is None else dy * post, _before(given)
    starts = reset.to(torch.bool)
    if initial is not None:
        v = torch.cat([initial, v], dim=1)
        slope = torch.cat([torch.zeros_like(initial), slope], dim=1)
        starts = torch.cat([starts.new_zeros(B, before), starts], dim=1)
    after = torch.cat([starts[:, 1:], starts.new_zeros(B, 1)], dim=1)
    reference = OPS["long_conv"].reference
    dv = reference(namespace(), slope.flip(1), filter, reset=after.flip(1)).flip(1)
    du = dv[:, before:]
    dpost = None
    if post is not None:
        plain = reference(namespace(), v, filter, reset=starts)[:, before:]
        dpost = (dy * plain).to(given["post"].dtype)
    if lengths is not None:
        du = torch.where(real, du, 0.0)
    return (
        (du if pre is None else du * pre).to(given["u"].dtype),
        _filter_slope(v, slope, starts.long().cumsum(1), filter).to(given["filter"].dtype),
        None if pre is None else (du * u).to(given["pre"].dtype),
        dpost,
        None if initial is None else dv[:, :before].to(given["initial_state"].dtype),
    )


def _filter_slope(v: Tensor, slope: Tensor, document: Tensor, filter: Tensor) -> Tensor:
    """Σ_t slope_t v_{t-j} over pairs of one document, for every j: halves are split as the reference splits them."""
    B, length, D = v.shape
    n = 1 << (length - 1).bit_length()
    v, slope = (torch.nn.functional.pad(a, (0, 0, 0, n - length)) for a in (v, slope))
    document = torch.nn.functional.pad(document, (0, n - length), value=-1)
    found = torch.zeros(max(n, filter.shape[0]), D, dtype=torch.float32, device=v.device)
    found[0] = (v * slope).sum((0, 1))
    half = 1
    while half < n:
        shape = (B, n // (2 * half), 2 * half)
        numbers = document.view(shape)
        same = (numbers == numbers[:, :, half : half + 1])[..., None]
        left = torch.where(same, v.view(*shape, D), 0.0)
        right = torch.where(same, slope.view(*shape, D), 0.0)
        left[:, :, half:], right[:, :, :half] = 0.0, 0.0
        both = torch.fft.rfft(left, dim=2).conj() * torch.fft.rfft(right, dim=2)
        found[: 2 * half] += torch.fft.irfft(both.sum((0, 1)), n=2 * half, dim=0)
        half *= 2
    return found[: filter.shape[0]]


def _before(given: dict[str, Any]) -> int:
    return 0 if given["initial_state"] is None else int(given["initial_state"].shape[1])


def _length(given: dict[str, Any]) -> int:
    """Of the transforms, so that nothing wraps around."""
    total = _before(given) + given["u"].shape[1]
    return 1 << int(total + min(total, given["filter"].shape[0]) - 2).bit_length()


def _response(given: dict[str, Any], n: int) -> Tensor:
    taps = given["filter"].detach().float()[: _before(given) + given["u"].shape[1]]
    response: Tensor = torch.fft.rfft(taps.transpose(0, 1), n=n)
    return response


def _transformed(given: dict[str, Any], row_ends: Tensor | None, n: int, lost: Tensor | None = None) -> Tensor:
    v = _gathered(given["u"], given["pre"], given["initial_state"], row_ends, _before(given), n, lost)
    spectrum: Tensor = torch.fft.rfft(v)
    return spectrum


def _gathered(
    x: Tensor, gate: Tensor | None, before: Tensor | None, row_ends: Any, S: int, n: int, lost: Tensor | None = None
) -> Tensor:
    B, L, D = x.shape
    out = torch.empty(B, D, n, dtype=torch.float32, device=x.device)
    launch(
        _gather, (B * blocks(n, STEPS) * blocks(D, CHANNELS),), x, gate, before, row_ends, out, lost, L, D, S, n,
        *strides(x), *strides(gate), STEPS=STEPS, CHANNELS=CHANNELS,
    )  # fmt: skip
    return out


def _scattered(
    x: Tensor, gate: Tensor | None, row_ends: Any, given: dict[str, Any], out: Tensor, lost: Tensor | None = None
) -> Tensor:
    B, L, D = given["u"].shape
    launch(
        _scatter, (B * blocks(L, STEPS) * blocks(D, CHANNELS),), x, gate, row_ends, out, lost,
        L, D, _before(given), x.shape[2], *strides(gate), STEPS=STEPS, CHANNELS=CHANNELS,
    )  # fmt: skip
    return out


def _wide(given: dict[str, Any]) -> tuple[Any, ...]:
    """The inputs in float32, flags as they are."""
    floats = (None if (a := given[name]) is None else a.detach().float() for name in NAMES[:5])
    return (*floats, given["reset"], given["lengths"])


def _checked(arrays: tuple[Tensor | None, ...]) -> dict[str, Any]:
    given = named("long_conv", NAMES, arrays, 2)
    shape = tuple(given["u"].shape)
    if len(shape) != 3 or given["filter"].ndim != 2:
        raise ValueError(f"long_conv: u must be (B, L, D), not {shape}, and filter (K, D)")
    B, L, D = shape
    shapes = (shape, (given["filter"].shape[0], D), shape, shape, (B, _before(given), D), (B, L), (B,))
    check("long_conv", {name: (given[name], s) for name, s in zip(NAMES, shapes, strict=True)})
    strided = {name: rows(given[name]) for name in ("u", "pre", "post")}
    return {**given, **strided, "initial_state": dense(given["initial_state"])}
