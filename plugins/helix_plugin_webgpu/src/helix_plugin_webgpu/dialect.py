"""The kernel language in WGSL: it is WGSL but for a few macros, and functions that drivers do not compute well."""

from __future__ import annotations

import re
from collections.abc import Callable

from helix_device_arrays.program import COMMON, Binding, Program

Macros = dict[str, Callable[..., str]]

ALWAYS: Macros = {
    "LOADH": lambda buffer, i: f"f32({buffer}[{i}])",
    "STOREH": lambda buffer, i, v: f"{buffer}[{i}] = f16({v})",
    "LOADB": lambda buffer, i: f"(({buffer}[({i}) >> 2u] >> ((u32({i}) & 3u) * 8u)) & 255)",
    "round_": lambda x: f"round({x})",
    "abs_": lambda x: f"abs({x})",
    "mul_": lambda a, b: f"({a} * {b})",
    "float_": lambda x: f"bitcast<f32>({x})",
    "fmod_": lambda a, b: f"({a} - floor({a} / {b}) * {b})",
    "abs_v_": lambda v: f"abs({v})",
    "max_v_": lambda a, b: f"max({a}, {b})",
}
MAPPED = ("exp", "log1p", "sigmoid", "silu", "softplus")
"""Functions of a float that a vector has for each of its own."""
ONE: Macros = ALWAYS | {
    "LOADV": lambda buffer, i: f"{buffer}[{i}]",
    "STOREV": lambda buffer, i, v: f"{buffer}[{i}] = {v}",
    "splat_": lambda x: f"({x})",
    "vec_": lambda x: f"({x})",
    "sum_": lambda v: f"({v})",
    "at_": lambda v, i: f"({v})",
}
"""Where a `vec` is a float."""
ONE |= {f"{name}_v_": f"{name}_({{}})".format for name in MAPPED}
FOUR: Macros = ALWAYS | {
    "LOADV": lambda buffer, i: f"{buffer}[({i}) >> 2u]",
    "STOREV": lambda buffer, i, v: f"{buffer}[({i}) >> 2u] = {v}",
    "splat_": lambda x: f"vec4<f32>({x})",
    "vec_": lambda *x: f"vec4<f32>({', '.join(x)})",
    "at_": lambda v, i: f"({v})[{i}]",
}
"""Where a `vec` is four floats: buffers that are read or written in vectors consist of them."""

PRELUDE = """
fn isnan_(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }
fn inf_() -> f32 { return bitcast<f32>(P.infinity); }
fn nan_() -> f32 { return bitcast<f32>(P.infinity | 0x400000); }
fn dot4_(a: i32, b: i32) -> i32 {
  return ((a << 24u) >> 24u) * ((b << 24u) >> 24u) + ((a << 16u) >> 24u) * ((b << 16u) >> 24u)
       + ((a << 8u) >> 24u) * ((b << 8u) >> 24u) + (a >> 24u) * (b >> 24u);
}
fn exp_(x: f32) -> f32 {
  let n: f32 = round(x * 1.44269504f);
  let r: f32 = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  var p: f32 = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  let e: i32 = i32(n);
  let h: i32 = e >> 1u;
  p = p * bitcast<f32>((h + 127) << 23u) * bitcast<f32>((e - h + 127) << 23u);
  return select(select(select(p, 0.0f, x < -104.0f), inf_(), x > 88.75f), x, isnan_(x));
}
fn series_(s: f32) -> f32 {
  let z: f32 = s * s;
  return 2.0f * s * (1.0f + z * (0.33333333f + z * (0.2f + z * (0.14285714f + z * (0.11111111f + z * 0.09090909f)))));
}
fn log_(x: f32) -> f32 {
  let tiny: bool = x < 1.17549435e-38f;
  let bits: i32 = bitcast<i32>(select(x, x * 16777216.0f, tiny));
  let e: i32 = ((bits - 0x3f3504f3) >> 23u);
  let m: f32 = bitcast<f32>(bits - (e << 23u));
  let n: f32 = f32(e) - select(0.0f, 24.0f, tiny);
  let y: f32 = n * 0.693359375f + (series_((m - 1.0f) / (m + 1.0f)) - n * 2.12194440e-4f);
  let edge: f32 = select(select(nan_(), -inf_(), x == 0.0f), x, x > 3.0e38f || isnan_(x));
  return select(edge, y, x > 0.0f && x <= 3.0e38f);
}
fn log1p_(x: f32) -> f32 {
  if (abs(x) < 0.4f) { return series_(x / (2.0f + x)); }
  return log_(1.0f + x);
}
fn expm1_(x: f32) -> f32 {
  if (abs(x) < 0.5f) {
    let p: f32 = 8.3333333e-3f + x * (1.3888889e-3f + x * (1.9841270e-4f + x * (2.4801587e-5f + x * 2.7557319e-6f)));
    return x + x * x * (0.5f + x * (0.16666667f + x * (4.1666667e-2f + x * p)));
  }
  return exp_(x) - 1.0f;
}
fn tanh_(x: f32) -> f32 {
  let t: f32 = expm1_(2.0f * min(abs(x), 10.0f));
  let y: f32 = t / (t + 2.0f);
  return select(select(y, -y, x < 0.0f), x, isnan_(x));
}
fn turned_(x: f32, quarter: i32) -> f32 {
  let q: f32 = round(x * 0.63661977f);
  let r: f32 = ((x - q * 1.5703125f) - q * 4.8375129699707e-4f) - q * 7.5497899e-8f;
  let z: f32 = r * r;
  let s: f32 = ((-1.9515295891e-4f * z + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * r + r;
  let w: f32 = (2.443315711809948e-5f * z - 1.388731625493765e-3f) * z + 4.166664568298827e-2f;
  let c: f32 = w * z * z - 0.5f * z + 1.0f;
  let k: i32 = (i32(q) + quarter) & 3;
  let y: f32 = select(s, c, (k & 1) == 1);
  return select(y, -y, k >= 2);
}
fn sin_(x: f32) -> f32 { return turned_(x, 0); }
fn cos_(x: f32) -> f32 { return turned_(x, 1); }
fn atan2_(y: f32, x: f32) -> f32 {
  let big: f32 = max(abs(x), abs(y));
  let small: f32 = min(abs(x), abs(y));
  let ratio: f32 = select(small / big, 0.0f, big == 0.0f);
  let over: bool = ratio > 0.41421356f;
  let t: f32 = select(ratio, (ratio - 1.0f) / (ratio + 1.0f), over);
  let z: f32 = t * t;
  let w: f32 = ((8.05374449538e-2f * z - 1.38776856032e-1f) * z + 1.99777106478e-1f) * z - 3.33329491539e-1f;
  var a: f32 = w * z * t + t;
  a = a + select(0.0f, 0.78539816f, over);
  a = select(a, 1.57079633f - a, abs(y) > abs(x));
  a = select(a, 3.14159265f - a, x < 0.0f);
  return select(a, -a, y < 0.0f);
}
fn pow_(a: f32, b: f32) -> f32 { return select(exp_(b * log_(a)), 1.0f, b == 0.0f); }
"""

REST = """
fn silu_(x: f32) -> f32 { return x * sigmoid_(x); }
fn softplus_(x: f32) -> f32 {
  // log1p of 0 to 1 without a branch: 2 artanh(t / (2 + t)).
  let t: f32 = exp_(-abs(x));
  let s: f32 = t / (2.0f + t);
  let z: f32 = s * s;
  let more: f32 = 0.14285714f + z * (0.11111111f + z * (0.09090909f + z * (0.07692308f + z * 0.06666667f)));
  return max(x, 0.0f) + 2.0f * s * (1.0f + z * (0.33333333f + z * (0.2f + z * more)));
}
"""

VECTORS = "fn sum_(v: vec4<f32>) -> f32 { return (v.x + v.y) + (v.z + v.w); }\n" + "\n".join(
    f"fn {f}_v_(v: vec4<f32>) -> vec4<f32> {{ return vec4<f32>({f}_(v.x), {f}_(v.y), {f}_(v.z), {f}_(v.w)); }}"
    for f in MAPPED
)


def expanded(text: str, macros: Macros = ONE, vectors: frozenset[str] = frozenset()) -> str:
    """Replace macros, innermost arguments first, and single floats of `vectors`, buffers of four floats in one."""
    names = [f"{name}\\(" for name in macros] + [f"{name}\\[" for name in vectors]
    pattern = re.compile(rf"\b(?:{'|'.join(names)})")
    parts, done = [], 0
    while found := pattern.search(text, done):
        arguments, begin, depth, at = [], found.end(), 1, found.end()
        while depth:
            mark = text[at]
            depth += (mark in "([") - (mark in ")]")
            if (mark == "," and depth == 1) or depth == 0:
                arguments.append(expanded(text[begin:at].strip(), macros, vectors))
                begin = at + 1
            at += 1
        name = found[0][:-1]
        if found[0].endswith("["):
            value = f"{name}[({arguments[0]}) >> 2u][({arguments[0]}) & 3]"
        else:
            value = macros[name](*(a for a in arguments if a))
        parts += [text[done : found.start()], value]
        done = at
    return "".join([*parts, text[done:]])


def kind(binding: Binding) -> str:
    """The elements of a buffer; bytes, which WGSL does not have, are read out of words."""
    return "i32" if binding.stored == "u8" else binding.stored


def source(program: Program) -> str:
    """The whole text of a program in WGSL; its entry point is `main`."""
    halves = any(b.stored == "f16" for b in program.buffers)
    four = program.lanes == 4
    assert four or program.lanes == 1
    vectors = frozenset(re.findall(r"\b(?:LOADV|STOREV)\((\w+)", program.body) if four else ())
    bindings = "\n".join(
        f"@group(0) @binding({i}) var<storage, {'read_write' if b.writes else 'read'}> {b.name}: "
        f"array<{'vec4<f32>' if b.name in vectors else kind(b)}>;"
        for i, b in enumerate(program.buffers)
    )
    fields = "".join(f"  {name}: i32,\n" for name in ("groups", "infinity", *program.params))
    shared = "\n".join(f"var<workgroup> {name}: array<{kind}, {count}>;" for name, kind, count in program.shared)
    body = re.sub(r"\bvec\b", "vec4<f32>" if four else "f32", expanded(program.body, FOUR if four else ONE, vectors))
    return f"""{"enable f16;" if halves else ""}
struct Params {{
{fields}}}
{bindings}
@group(0) @binding({len(program.buffers)}) var<uniform> P: Params;
{shared}
{PRELUDE}{expanded(COMMON)}{REST}{VECTORS if four else ""}
@compute @workgroup_size({program.width}, 1, 1)
fn main(@builtin(workgroup_id) place: vec3<u32>, @builtin(num_workgroups) extent: vec3<u32>,
        @builtin(local_invocation_id) own: vec3<u32>) {{
let group: i32 = i32(place.x + place.y * extent.x);
let lane: i32 = i32(own.x);
if (group >= P.groups) {{ return; }}
{body}
}}
"""
