"""The kernel language in OpenCL C 1.2."""

from __future__ import annotations

import re

from helix_device_arrays.program import COMMON, Program

TYPES = {"f32": "float", "i32": "int", "u32": "uint", "bool": "bool", "f16": "half", "u8": "uchar"}

PRELUDE = """
#define f32(x) ((float)(x))
#define i32(x) ((int)(x))
#define u32(x) ((uint)(x))
#undef select
#define select(otherwise, then, condition) ((condition) ? (then) : (otherwise))
#define workgroupBarrier() barrier(CLK_LOCAL_MEM_FENCE)
#define exp_ exp
#define log_ log
#define log1p_ log1p
#define expm1_ expm1
#define tanh_ tanh
#define sin_ sin
#define cos_ cos
#define atan2_ atan2
#define pow_ pow
#define fmod_(a, b) ((a) - floor((a) / (b)) * (b))
#define abs_(x) ((x) < 0 ? -(x) : (x))
#define mul_(a, b) as_int(as_uint(a) * as_uint(b))
#define float_(x) as_float(x)
#define isnan_(x) isnan(x)
#define inf_() INFINITY
#define nan_() NAN
#define round_ rint
#define LOADB(buffer, i) ((int)(buffer)[i])
#define LOADH(buffer, i) vload_half(i, buffer)
#define STOREH(buffer, i, x) vstore_half(x, i, buffer)
int dot4_(int a, int b);
int dot4_(int a, int b) {
  return (a << 24 >> 24) * (b << 24 >> 24) + (a << 16 >> 24) * (b << 16 >> 24)
       + (a << 8 >> 24) * (b << 8 >> 24) + (a >> 24) * (b >> 24);
}
"""

VECTORS = """
#define sigmoid_v_(v) (1.0f / (1.0f + exp_v_(-(v))))
#define silu_v_(v) ((v) * sigmoid_v_(v))
#define log1p_v_(v) log1p(v)
#define abs_v_(v) fabs(v)
#define max_v_(a, b) fmax(a, b)
#define softplus_v_(v) (log1p(exp(-fabs(v))) + fmax(v, (vec)(0.0f)))
"""
"""Vectors have OpenCL's own functions, which a single float has under the same names."""

_FUNCTION = re.compile(r"fn (\w+)\((.*?)\) -> (\w+) \{")
_ARGUMENT = re.compile(r"(\w+): (\w+)")
_ARRAY = re.compile(r"\bvar (\w+): array<(\w+), (\w+)>;")
_VARIABLE = re.compile(r"\bvar (\w+): (\w+)")
_LET = re.compile(r"\blet (\w+): (\w+)")


def translated(text: str) -> str:
    """Kernel language -> OpenCL C."""
    text = _FUNCTION.sub(_function, text)
    text = _ARRAY.sub(lambda m: f"{_type(m[2])} {m[1]}[{m[3]}];", text)
    text = _VARIABLE.sub(lambda m: f"{_type(m[2])} {m[1]}", text)
    return _LET.sub(lambda m: f"const {_type(m[2])} {m[1]}", text)


def _function(match: re.Match[str]) -> str:
    arguments = _ARGUMENT.sub(lambda m: f"{_type(m[2])} {m[1]}", match[2])
    return f"{_type(match[3])} {match[1]}({arguments});\n{_type(match[3])} {match[1]}({arguments}) {{"


def _type(name: str) -> str:
    return TYPES.get(name, name)


def _vectors(lanes: int, direct: bool) -> str:
    if lanes == 1:
        return """
typedef float vec;
#define LOADV(buffer, i) ((buffer)[i])
#define STOREV(buffer, i, v) (buffer)[i] = (v)
#define splat_(x) ((float)(x))
#define sum_(v) (v)
#define at_(v, i) (v)
#define exp_v_(v) exp(v)
"""
    halves, total = lanes, "v"
    steps = []
    while halves > 2:
        halves //= 2
        steps.append(f"const float{halves} v{halves} = {total}.lo + {total}.hi;")
        total = f"v{halves}"
    if direct:
        access = """typedef vec loose __attribute__((aligned(4)));
#define LOADV(buffer, i) (*(const __global loose *)((buffer) + (i)))
#define STOREV(buffer, i, v) *(__global loose *)((buffer) + (i)) = (v)
"""
    else:
        access = f"""#define LOADV(buffer, i) vload{lanes}(0, (buffer) + (i))
#define STOREV(buffer, i, v) vstore{lanes}(v, 0, (buffer) + (i))
"""
    return f"""
typedef float{lanes} vec;
{access}#define splat_(x) ((vec)(x))
float sum_(vec v);
float sum_(vec v) {{ {" ".join(steps)} return {total}.x + {total}.y; }}
float at_(vec v, int i);
float at_(vec v, int i) {{ return ((float *)&v)[i]; }}
vec exp_v_(vec x);
vec exp_v_(vec x) {{
  // Without a table or a branch; n is x / log 2, rounded by adding 1.5 * 2^23. Cephes' polynomial.
  const vec low = x < -104.0f ? (vec)(-104.0f) : x;
  const vec shifted = (low > 89.0f ? (vec)(89.0f) : low) * 1.44269504f + 12582912.0f;
  const vec n = shifted - 12582912.0f;
  const vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  vec p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const int{lanes} e = as_int{lanes}(shifted) - 0x4B400000;
  const int{lanes} h = e >> 1;
  p = p * as_float{lanes}((h + 127) << 23) * as_float{lanes}((e - h + 127) << 23);
  p = x < -104.0f ? (vec)(0.0f) : p;
  p = x > 88.75f ? (vec)(INFINITY) : p;
  return x != x ? x : p;
}}
"""


def source(program: Program, direct: bool = False) -> str:
    """The whole text of a program in OpenCL C; its kernel is called "helix_" and the name.

    direct   vectors are read through pointers: drivers for processors may call a function for every `vload`
    """
    arguments = [
        f"__global {'' if b.writes else 'const '}{TYPES[b.stored]} * restrict {b.name}" for b in program.buffers
    ]
    fields = "".join(f" int {name};" for name in program.params)
    shared = "\n".join(f"__local {_type(kind)} {name}[{count}];" for name, kind, count in program.shared)
    size = f"__attribute__((reqd_work_group_size({program.width}, 1, 1)))"
    return f"""{PRELUDE}{_vectors(program.lanes, direct)}{VECTORS}{translated(COMMON)}
typedef struct {{ int groups;{fields} }} Params;
__kernel {size} void helix_{program.name}({", ".join([*arguments, "const Params P"])}) {{
{shared}
const int group = (int)get_group_id(0);
const int lane = (int)get_local_id(0);
{translated(program.body)}
}}
"""
