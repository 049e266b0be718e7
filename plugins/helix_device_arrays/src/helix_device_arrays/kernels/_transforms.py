"""Fourier transforms along the second axis of (B, n, C), in passes over all of it; n is a power of two."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from helix_core.errors import UsageError
from helix_device_arrays.array import Array
from helix_device_arrays.device import Buffer, Device
from helix_device_arrays.dtypes import float32
from helix_device_arrays.kernels._arguments import buffer_of, items, lanes_for, read, written
from helix_device_arrays.nodes import Leaf
from helix_device_arrays.program import Program
from helix_device_arrays.views import View, size_of


def _multiplied(name: str, twiddle: int) -> str:
    """`name` times the root of unity number k * `twiddle`."""
    return f"""
  let q{twiddle}: i32 = 2 * ((k * {twiddle} * P.turn) % P.n);
  let cos{twiddle}: vec = splat_(roots[q{twiddle}]);
  let sin{twiddle}: vec = splat_(roots[q{twiddle} + 1]);
  let re{twiddle}: vec = {name}r * cos{twiddle} - {name}i * sin{twiddle};
  let im{twiddle}: vec = {name}r * sin{twiddle} + {name}i * cos{twiddle};"""


@functools.cache
def _pass(radix: int, first: bool, lanes: int, width: int) -> Program:
    """One step of a transform of `P.n` points whose parts of `P.done` points are transformed: a Stockham pass.

    Planes of real and imaginary parts (B, n, C). The first reads (B, P.given, 2 C): a channel of the first half and one
    of the second are the parts of one complex sequence, zero beyond `P.given`.
    Source: Govindaraju et al., High Performance Discrete Fourier Transforms on Graphics Processors, 2008.
    """
    loads = []
    for r in range(radix):
        place = f"j + {r} * (P.n / {radix})"
        if first:
            at = f"(b * P.given + {place}) * 2 * P.channels + c"
            loads.append(f"var x{r}r: vec = splat_(0.0f);\n  var x{r}i: vec = splat_(0.0f);")
            loads.append(f"if ({place} < P.given) {{ x{r}r = LOADV(re, {at}); x{r}i = LOADV(re, {at} + P.channels); }}")
        else:
            at = f"(b * P.n + {place}) * P.channels + c"
            loads.append(f"let x{r}r: vec = LOADV(re, {at});\n  let x{r}i: vec = LOADV(im, {at});")
    turned = []
    for r in range(1, radix):
        if first:
            turned.append(f"let re{r}: vec = x{r}r;\n  let im{r}: vec = x{r}i;")
        else:
            turned.append(_multiplied(f"x{r}", r))
    if radix == 2:
        outputs = [("x0r + re1", "x0i + im1"), ("x0r - re1", "x0i - im1")]
        combined = ""
    else:
        combined = """
  let ar: vec = x0r + re2;
  let ai: vec = x0i + im2;
  let br: vec = x0r - re2;
  let bi: vec = x0i - im2;
  let cr: vec = re1 + re3;
  let ci: vec = im1 + im3;
  let dr: vec = re1 - re3;
  let di: vec = im1 - im3;"""
        outputs = [("ar + cr", "ai + ci"), ("br + di", "bi - dr"), ("ar - cr", "ai - ci"), ("br - di", "bi + dr")]
    stores = "\n".join(
        f"  STOREV(out_re, to + {r} * P.done * P.channels, {re});\n"
        f"  STOREV(out_im, to + {r} * P.done * P.channels, {im});"
        for r, (re, im) in enumerate(outputs)
    )
    body = f"""
let item: i32 = group * {width} + lane;
if (item < P.count) {{
  let chunks: i32 = P.channels / {lanes};
  let c: i32 = (item % chunks) * {lanes};
  let j: i32 = (item / chunks) % (P.n / {radix});
  let b: i32 = item / (chunks * (P.n / {radix}));
  let k: i32 = j % P.done;
  {chr(10).join(loads)}
  {chr(10).join(turned)}
  {combined}
  let to: i32 = (b * P.n + (j / P.done) * P.done * {radix} + k) * P.channels + c;
{stores}
}}"""
    buffers = (*written("out_re", "out_im"), *read("re", *(() if first else ("im", "roots"))))
    params = ("count", "channels", "n", "done", "turn", "given")
    return Program("transform", buffers, params, body, width, lanes)


def _roots(device: Device, n: int) -> Buffer:
    """cos and sin of -2π k / n, rounded from float64."""
    found = device.tables.get(("roots", n))
    if found is None:
        angle = -2 * math.pi * np.arange(n) / n
        table = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
        found = device.tables["roots", n] = device.upload(np.ascontiguousarray(table))
    return found


def transform(
    device: Device, source: list[Buffer], batch: int, channels: int, n: int, lanes: int, given: int | None
) -> list[Buffer]:
    """Planes of the transform of `source`: planes, or with `given` numbers of two channels in one array."""
    done = 1
    roots = _roots(device, n)
    while done < n:
        radix = 4 if n // done % 4 == 0 else 2
        first = done == 1 and given is not None
        program = _pass(radix, first, lanes, device.width)
        out = [device.allocate(4 * batch * n * channels) for _ in range(2)]
        count = batch * (n // radix) * channels // lanes
        params = [count, channels, n, done, n // (done * radix), given or 0]
        inputs = source if first else [*source, roots]
        device.launch(program, [*out, *inputs], params, items(count, device.width))
        source, done = out, done * radix
    return source


class Spectrum:
    """Half of the transform of real numbers: what `rfft` returns, `*` multiplies and `irfft` takes."""

    def __init__(self, real: Array, imag: Array) -> None:
        self.real, self.imag = real, imag

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of each of its two parts."""
        return self.real.shape

    def __mul__(self, other: Any) -> Spectrum:
        if isinstance(other, Spectrum):
            real = self.real * other.real - self.imag * other.imag
            return Spectrum(real, self.real * other.imag + self.imag * other.real)
        return Spectrum(self.real * other, self.imag * other)

    __rmul__ = __mul__


class Transforms:
    """`xp.fft`: transforms of real numbers whose length is a power of two."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def rfft(self, x: Array, n: int | None = None, axis: int = -1) -> Spectrum:
        """(..., L, ...) -> (..., n/2 + 1, ...), of the first n numbers or filled up with zeros."""
        xp, axis = self.device.namespace, axis % x.ndim
        n = self._power(n or x.shape[axis])
        cut = x[(*(slice(None),) * axis, slice(0, n))]
        missing = n - cut.shape[axis]
        if missing:
            gap = tuple(missing if a == axis else k for a, k in enumerate(x.shape))
            cut = xp.concat([cut, xp.zeros(gap)], axis=axis)
        real, imag = self._planes(cut, xp.zeros(cut.shape), axis, n)
        half = (*(slice(None),) * axis, slice(0, n // 2 + 1))
        return Spectrum(real[half], imag[half])

    def irfft(self, x: Spectrum, n: int | None = None, axis: int = -1) -> Array:
        """The real numbers whose `rfft` it is."""
        xp, axis = self.device.namespace, axis % len(x.shape)
        n = self._power(n or 2 * (x.shape[axis] - 1))
        lead = (slice(None),) * axis
        first, mirrored = (*lead, slice(0, n // 2 + 1)), (*lead, slice(n // 2 - 1, 0, -1))
        real, imag = x.real[first], x.imag[first]
        if n > 2:
            real = xp.concat([real, x.real[mirrored]], axis=axis)
            imag = xp.concat([imag, -x.imag[mirrored]], axis=axis)
        elif n == 1:
            real, imag = real[(*lead, slice(0, 1))], imag[(*lead, slice(0, 1))]
        # With the planes exchanged, the transform is its own inverse but for the factor.
        return self._planes(imag, real, axis, n)[1] * (1 / n)

    def _planes(self, real: Array, imag: Array, axis: int, n: int) -> list[Array]:
        shape = real.shape
        batch, channels = size_of(shape[:axis]), size_of(shape[axis + 1 :])
        lanes = lanes_for(self.device, channels) if self.device.vectors else 1
        planes = [buffer_of(real), buffer_of(imag)]
        found = transform(self.device, planes, batch, channels, n, lanes, None)
        return [Array(self.device, Leaf(plane, View.of(shape), float32)) for plane in found]

    @staticmethod
    def _power(n: int) -> int:
        if n < 1 or n & (n - 1):
            raise UsageError(
                f"a transform of {n} numbers is asked for, and the device has those of powers of two",
                hint="fill up with zeros to the next power of two",
            )
        return n
