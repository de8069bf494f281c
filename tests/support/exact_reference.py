"""The arithmetic of docs/arithmetic.md once more, slowly, in integers alone: what implementations are compared with.

It shares no line with the library. A number is a pair (m, e) of Python integers that stands for m·2^e, or one of
`INFINITY`, `MINUS_INFINITY` and `NAN`; every operation finds the exact result, or one with enough bits and a sticky
one, and rounds it by integer arithmetic to a `Format`. Zeros have no sign here: no zero's sign reaches a logit.
Floating point of the machine is read (weights, numbers of config.json) and written as bits, never computed with.

It is quick enough for models of a few thousand weights: about a second for a dozen tokens.
"""

from fractions import Fraction
from functools import lru_cache
from math import isqrt
from typing import NamedTuple

import numpy as np


class Format(NamedTuple):
    """A binary format of IEEE-754: bits of precision, and the exponents of its smallest and its largest last bit."""

    precision: int
    lowest: int
    highest: int


F32 = Format(24, -149, 104)
F64 = Format(53, -1074, 971)

ZERO, ONE = (0, 0), (1, 0)
INFINITY, MINUS_INFINITY, NAN = (1, None), (-1, None), (0, None)


# Rounding and single operations


def rounded(m, e, kind):
    """m·2^e to the nearest number of `kind`, ties to even, subnormal numbers kept."""
    magnitude = abs(m)
    cut = max(magnitude.bit_length() - kind.precision, kind.lowest - e)
    if cut > 0:
        magnitude = shifted(magnitude, -cut)
        e += cut
    if magnitude == 0:
        return ZERO
    if magnitude.bit_length() + e > kind.precision + kind.highest:
        return INFINITY if m > 0 else MINUS_INFINITY
    return (magnitude if m > 0 else -magnitude), e


def shifted(m, places):
    """The integer nearest to m·2^places, ties to even."""
    if places >= 0:
        return m << places
    low = m & ((1 << -places) - 1)
    half = 1 << (-places - 1)
    m >>= -places
    return m + (low > half or (low == half and m & 1))


def quotient(numerator, denominator, e, kind):
    """numerator ÷ denominator · 2^e, of integers with a positive denominator, rounded once."""
    up = max(0, kind.precision + 3 - abs(numerator).bit_length() + denominator.bit_length())
    whole, rest = divmod(abs(numerator) << up, denominator)
    whole = 2 * whole + (rest > 0)
    return rounded(whole if numerator > 0 else -whole, e - up - 1, kind)


def nearest(value, kind):
    """A Fraction (or an integer) to the nearest number of `kind`."""
    value = Fraction(value)
    return quotient(value.numerator, value.denominator, 0, kind)


def add(a, b, kind=F32):
    (m, e), (n, f) = a, b
    if e is None or f is None:
        if e is None and f is None:
            return a if m == n else NAN
        return a if e is None else b
    low = min(e, f)
    return rounded((m << (e - low)) + (n << (f - low)), low, kind)


def negative(a):
    return -a[0], a[1]


def subtract(a, b, kind=F32):
    return add(a, negative(b), kind)


def multiply(a, b, kind=F32):
    (m, e), (n, f) = a, b
    if e is None or f is None:
        return sign(m) * sign(n), None  # infinity times zero is NAN
    return rounded(m * n, e + f, kind)


def divide(a, b, kind=F32):
    """a ÷ b of a finite b that is not zero."""
    (m, e), (n, f) = a, b
    if n == 0 or f is None:
        raise ZeroDivisionError(f"{a} / {b}: no divisor in this arithmetic is zero or infinite")
    if e is None:
        return sign(m) * sign(n), None
    return quotient(m * sign(n), abs(n), e - f, kind)


def square_root(a, kind):
    """√a of a finite a ≥ 0."""
    m, e = a
    up = 2 * kind.precision + 4
    up += (e - up) % 2
    root = isqrt(m << up)
    return rounded(2 * root + (root * root != m << up), (e - up) // 2 - 1, kind)


def to(a, kind):
    return a if a[1] is None else rounded(*a, kind)


def scale(a, k):
    """a·2^k in f32."""
    return multiply(a, (1, k))


def sign(m):
    return (m > 0) - (m < 0)


def greater(a, b):
    """a > b; false with a NAN."""
    if NAN in (a, b):
        return False
    if a[1] is None or b[1] is None:
        return a != b and (a == INFINITY or b == MINUS_INFINITY)
    low = min(a[1], b[1])
    return a[0] << (a[1] - low) > b[0] << (b[1] - low)


def exact(a):
    """A finite number as a Fraction."""
    return Fraction(a[0]) * Fraction(2) ** a[1]


# Numbers in and out


def from_bits(bits):
    """The number of a 32-bit pattern of an f32."""
    field, mantissa = bits >> 23 & 255, bits & 0x7FFFFF
    minus = bits >> 31
    if field == 255:
        return NAN if mantissa else (MINUS_INFINITY if minus else INFINITY)
    m, e = (mantissa | 1 << 23, field - 150) if field else (mantissa, -149)
    return (-m if minus else m), (e if m else 0)


def to_bits(a):
    """The 32-bit pattern of an f32; the NAN is 0x7FC00000 and zero is positive."""
    m, e = a
    if e is None:
        return {1: 0x7F800000, -1: 0xFF800000, 0: 0x7FC00000}[m]
    if m == 0:
        return 0
    magnitude = abs(m)
    up = max(24 - magnitude.bit_length(), 0)
    up = min(up, e + 149)
    magnitude = magnitude << up if up >= 0 else magnitude >> -up
    field = e - up + 150 if magnitude >> 23 else 0
    return (m < 0) << 31 | field << 23 | magnitude & 0x7FFFFF


def from_config(number):
    """A number of config.json (an int, or a float, which json has rounded to the nearest f64)."""
    return nearest(Fraction(number), F64)


def from_array(array):
    """An array of float32 as nested lists of numbers."""

    def of(bits):
        return [of(row) for row in bits] if isinstance(bits, list) else from_bits(bits)

    return of(np.ascontiguousarray(array, dtype=np.float32).view(np.uint32).tolist())


# Section 2: rows of integers

Q15, Q24 = 140, 149


def quantised(row, width):
    """(integers, exponent) of a row; `width` is Q15 or Q24. Raises ArithmeticError for the page's **error**."""
    field = 80
    for m, e in row:
        if e is None:
            raise ArithmeticError("a row holds an infinite number or a NaN")
        if m:
            field = max(field, abs(m).bit_length() + e + 126)
    if field >= 247:
        raise ArithmeticError("a row holds a number of 2^120 or more")
    exponent = field - width
    return [shifted(m, e - exponent) for m, e in row], exponent


def linear(row, matrix, bias, r=(1, 0)):
    """`matrix`: a list of quantised rows; `bias`: a list of numbers or None; `r`: the multiplier."""
    q, e = quantised(row, Q15)
    out = [multiply(scale(rounded(dot(q, w), 0, F32), e), scale(r, f)) for w, f in matrix]
    return out if bias is None else sum_rows(out, [multiply(r, b) for b in bias])


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def sum_rows(a, b):
    return [add(x, y) for x, y in zip(a, b, strict=True)]


# Section 3: named functions

LOG2E = from_bits(0x3FB8AA3B)
MINUS_SIXTY, HALF = (-60, 0), (1, -1)
EXPONENTIAL = [from_bits(b) for b in (0x39218489, 0x3AAEC3FF, 0x3C1D955B, 0x3D635847, 0x3E75FDF0, 0x3F317218)] + [ONE]
ERF_BOUND = from_bits(0x406F9C68)
ERF_P = [from_bits(b) for b in (0x39702D51, 0x3B5F5DA2, 0x3D50B6EB, 0x3E3DA740, 0x3F906EBA)]
ERF_Q = [from_bits(b) for b in (0xB3FD3906, 0x37C588DF, 0x3A856D28, 0x3C6687D4, 0x3DE34C21, 0x3EFEB44A, 0x3F800000)]
ROOT_HALF, CUBIC, TANH_SCALE = from_bits(0x3F3504F3), from_bits(0x3D372713), from_bits(0x3FCC422A)


def horner(coefficients, t):
    """The highest coefficient first."""
    p, *rest = coefficients
    for c in rest:
        p = add(multiply(p, t), c)
    return p


def exponential(d):
    """(p, k) with e^d ≈ p·2^k."""
    y = multiply(d, LOG2E)
    y = y if greater(y, MINUS_SIXTY) else MINUS_SIXTY
    m, e = subtract(y, HALF)
    k = sign(m) * (abs(m) << e if e >= 0 else abs(m) >> -e)
    return horner(EXPONENTIAL, subtract(y, (k, 0))), k


def sigmoid(u):
    p, k = exponential(u if u[0] < 0 else negative(u))
    n = scale(p, k)
    return divide(n if u == NAN or u[0] < 0 else ONE, add(ONE, n))


def erf(a):
    if a == NAN:
        return NAN
    z = negative(ERF_BOUND) if greater(negative(ERF_BOUND), a) else ERF_BOUND if greater(a, ERF_BOUND) else a
    t = multiply(z, z)
    return divide(multiply(z, horner(ERF_P, t)), horner(ERF_Q, t))


def gelu(x):
    return multiply(multiply(x, HALF), add(ONE, erf(multiply(x, ROOT_HALF))))


def gelu_tanh(x):
    u = multiply(multiply(multiply(x, x), CUBIC), x)
    return multiply(x, sigmoid(multiply(add(u, x), TANH_SCALE)))


def silu(x):
    return multiply(x, sigmoid(x))


ACTIVATIONS = {
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "gelu_fast": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "silu": silu,
    "swish": silu,
}


# Section 4: norms


def inverse_deviation(v, e, epsilon):
    """f32(1 ÷ √(v·2^(2e) + ε)), v an f64."""
    v = multiply(v, (1, 2 * e), F64)
    return to(divide(ONE, square_root(add(v, epsilon, F64), F64), F64), F32)


def layer_norm(row, gain, bias, epsilon):
    q, e = quantised(row, Q24)
    n = len(row), 0
    mean = divide(rounded(sum(q), 0, F64), n, F64)
    v = divide(rounded(dot(q, q), 0, F64), n, F64)
    v = subtract(v, multiply(mean, mean, F64), F64)
    inverse = inverse_deviation(v if v[0] > 0 else ZERO, e, epsilon)
    mu = to(multiply(mean, (1, e), F64), F32)
    out = [multiply(multiply(subtract(x, mu), inverse), g) for x, g in zip(row, gain, strict=True)]
    return out if bias is None else sum_rows(out, bias)


def rms_norm(row, gain, epsilon):
    q, e = quantised(row, Q24)
    v = divide(rounded(dot(q, q), 0, F64), (len(row), 0), F64)
    inverse = inverse_deviation(v, e, epsilon)
    return [multiply(multiply(x, inverse), g) for x, g in zip(row, gain, strict=True)]


# Section 5: rotary tables, by integers of BITS fractional bits; every function below is wrong by less than 2^-SURE
# of its result (or of one), which a rounding either does not notice or refuses to decide.

BITS = 320
SURE = 200


def arctangent_of_inverse(n, alternating):
    """arctan(1/n), or with `alternating` false artanh(1/n), in fixed point, for an integer n > 1."""
    term = (1 << BITS) // n
    total, k = term, 1
    while term:
        term //= n * n
        k += 2
        total += -(term // k) if alternating and k % 4 == 3 else term // k
    return total


LN2 = 2 * arctangent_of_inverse(3, alternating=False)
HALF_PI = 8 * arctangent_of_inverse(5, alternating=True) - 2 * arctangent_of_inverse(239, alternating=True)  # Machin


def times(a, b):
    return a * b >> BITS


def logarithm(a):
    """ln a in fixed point, a > 0 a number."""
    m, e = a
    power = m.bit_length()
    x = (m << BITS) >> power  # m·2^-power in [1/2, 1)
    ratio = ((x - (1 << BITS)) << BITS) // (x + (1 << BITS))
    square, term, total, k = times(ratio, ratio), ratio, ratio, 1
    while abs(term) > 1:
        term = times(term, square)
        k += 2
        total += term // k
    return 2 * total + (e + power) * LN2


def exponential_of(x):
    """(integer in fixed point in [1, 2), power of two) of e^x, x in fixed point."""
    power = x // LN2
    x -= power * LN2
    total = term = 1 << BITS
    k = 1
    while term:
        term = times(term, x) // k
        k += 1
        total += term
    return total, power


@lru_cache
def power(base, a):
    """The f32 nearest to the real number base^a; base and a are numbers, 0 ≤ a < 1."""
    if a[0] == 0 or exact(base) == 1:
        return ONE
    m, e = exponential_of(times_number(logarithm(base), a))
    slack = 1 << (BITS - SURE)
    low, high = (rounded(m + s, e - BITS, F32) for s in (-slack, slack))
    if exact(low) != exact(high):
        # Only a number halfway between the two can keep its side from being seen.
        middle, share = (exact(low) + exact(high)) / 2, exact(a)
        if share.denominator > 4096 or middle**share.denominator != exact(base) ** share.numerator:
            raise ArithmeticError(f"base^a: {exact(base)}^{share} cannot be rounded with {SURE} bits")
        return nearest(middle, F32)
    return low


def times_number(x, a):
    """x·a, x in fixed point and a number."""
    product = x * a[0]
    return product << a[1] if a[1] >= 0 else product >> -a[1]


def sine_and_cosine(angle):
    """(sin, cos) in fixed point of an exact number ≥ 0."""
    theta = times_number(1 << BITS, angle)
    turns = (theta + HALF_PI // 2) // HALF_PI
    theta -= turns * HALF_PI
    parts, term, k = [0, 0], 1 << BITS, 0
    while abs(term) > 1:
        parts[k % 2] += -term if k % 4 > 1 else term
        k += 1
        term = times(term, theta) // k
    cos, sin = parts
    return [(sin, cos), (cos, -sin), (-sin, -cos), (-cos, sin)][turns % 4]


def nearest_of_thirty_bits(x):
    """f32(c)·2^-30 for the integer c nearest to x·2^30, x in fixed point."""
    slack = 1 << (BITS - SURE)
    low, high = (shifted(x + s, 30 - BITS) for s in (-slack, slack))
    if low != high:
        raise ArithmeticError(f"rotary table: a cosine or sine cannot be rounded with {SURE} bits")
    return scale(rounded(low, 0, F32), -30)


def frequencies_of_turning(rotary, base, scaling):
    """w_j of section 5; `scaling` is a dict of config.json or None."""
    ws = []
    for j in range(rotary // 2):
        a = divide((2 * j, 0), (rotary, 0))
        ws.append(scaled_frequency(divide(ONE, power(base, a)), scaling))
    return ws


def scaled_frequency(w, scaling):
    kind = scaling and scaling.get("rope_type", scaling.get("type"))
    if kind in (None, "default"):
        return w
    factor = from_config(scaling["factor"])
    if kind == "linear":
        return to(divide(w, factor, F64), F32)
    if kind != "llama3":
        raise ValueError(f"rope type {kind}: the page has none, linear and llama3")
    length, low, high = (
        from_config(scaling[name])
        for name in ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor")
    )
    wave = divide(from_config(6.283185307179586), w, F64)
    if greater(divide(length, high, F64), wave):
        return w
    if greater(wave, divide(length, low, F64)):
        return to(divide(w, factor, F64), F32)
    s = divide(subtract(divide(length, wave, F64), low, F64), subtract(high, low, F64), F64)
    slow = divide(multiply(subtract(ONE, s, F64), w, F64), factor, F64)
    return to(add(slow, multiply(s, w, F64), F64), F32)


def rotary_tables(ws, positions):
    """(cosines, sines), each a list over positions of lists over j."""
    cosines, sines = [], []
    for n in range(positions):
        pairs = [sine_and_cosine((n * m, e)) for m, e in ws]
        sines.append([nearest_of_thirty_bits(s) for s, _ in pairs])
        cosines.append([nearest_of_thirty_bits(c) for _, c in pairs])
    return cosines, sines


def turned(head, cosines, sines):
    half = len(cosines)
    head = list(head)
    for j in range(half):
        left, right, c, s = head[j], head[j + half], cosines[j], sines[j]
        head[j] = subtract(multiply(left, c), multiply(right, s))
        head[j + half] = add(multiply(right, c), multiply(left, s))
    return head


# Section 6: attention


def attend(query, keys, values, c):
    """One query head, `query` (q, e), over its visible keys and values, lists of such pairs."""
    q, e = query
    factor = scale(c, e)
    scores = [scale(multiply(rounded(dot(q, k), 0, F32), factor), e_j) for k, e_j in keys]
    top = largest(scores)
    if top[1] is None:
        raise ArithmeticError("a score is infinite or a NaN")
    weights = []
    for score in scores:
        p, k = exponential(subtract(score, top))
        weights.append((p[0], p[1] + k + 22))
    total = sum(shifted(m, e) for m, e in weights)
    f = max(f_j for _, f_j in values)
    ws = [shifted(m, e + f_j - f) for (m, e), (_, f_j) in zip(weights, values, strict=True)]
    g = to(divide(ONE, rounded(total, 0, F64), F64), F32)
    factor = scale(g, f)
    return [multiply(rounded(dot(ws, column), 0, F32), factor) for column in zip(*(v for v, _ in values), strict=True)]


def largest(numbers):
    top = MINUS_INFINITY
    for a in numbers:
        if a == NAN:
            return NAN
        top = a if greater(a, top) else top
    return top


# Section 7: the decoder


class Shape(NamedTuple):
    """What config.json says, its defaults being those of transformers."""

    family: str
    heads: int
    kv_heads: int
    head_dim: int
    rotary: int
    base: tuple
    scaling: dict | None
    epsilon: tuple
    activation: str
    biased: frozenset
    parallel: bool
    tied: bool
    turned: list
    multipliers: dict  # c, and r of the embedding, of what a layer adds, of the head


FAMILIES = (
    "gpt_neox",
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "olmo2",
    "stablelm",
    "phi3",
    "granite",
    "smollm3",
    "gemma",
)


def shape(config):
    family = config["model_type"]
    if family not in FAMILIES:
        raise ValueError(f"model_type {family}: not a family of section 7")
    neox = family == "gpt_neox"
    heads = config["num_attention_heads"]
    head_dim = (None if family in ("gpt_neox", "stablelm") else config.get("head_dim")) or config[
        "hidden_size"
    ] // heads
    turning = config.get("rope_parameters") or {}
    scaling = turning or config.get("rope_scaling")
    if neox:
        share = turning.get("partial_rotary_factor", config.get("rotary_pct", 0.25))
        base = turning.get("rope_theta", config.get("rotary_emb_base", 10000))
    else:
        share = 1.0
        if family in ("stablelm", "phi3"):
            absent = 0.25 if family == "stablelm" else 1.0
            share = turning.get("partial_rotary_factor", config.get("partial_rotary_factor", absent))
        base = turning.get("rope_theta", config.get("rope_theta", 2000000.0 if family == "smollm3" else 10000.0))
    rotary = int(exact(multiply(from_config(share), (head_dim, 0), F64)))
    return Shape(
        family,
        heads,
        heads if neox else config.get("num_key_value_heads") or heads,
        head_dim,
        rotary,
        from_config(base),
        scaling,
        from_config(config["layer_norm_eps" if family in ("gpt_neox", "stablelm") else "rms_norm_eps"]),
        "gelu_new" if family == "gemma" and config["hidden_act"] == "gelu" else config["hidden_act"],
        biased(config),
        neox and config.get("use_parallel_residual", True),
        config.get("tie_word_embeddings", family in ("smollm3", "gemma")),
        turned_layers(config),
        multipliers(config, head_dim),
    )


def turned_layers(config):
    layers = config["num_hidden_layers"]
    if config["model_type"] != "smollm3":
        return [True] * layers
    every = config.get("no_rope_layer_interval", 4)
    return config.get("no_rope_layers") or [(layer + 1) % every != 0 for layer in range(layers)]


def multipliers(config, head_dim):
    found = dict.fromkeys(("embedding", "residual", "head"), ONE)
    found["c"] = to(divide(ONE, square_root((head_dim, 0), F64), F64), F32)
    if config["model_type"] == "gemma":
        found["embedding"] = to(square_root((config["hidden_size"], 0), F64), F32)
    if config["model_type"] == "granite":
        of = {
            name: from_config(config.get(f"{name}_multiplier", 1.0)) for name in ("embedding", "attention", "residual")
        }
        head = divide(ONE, from_config(config.get("logits_scaling", 1.0)), F64)
        found = {"embedding": of["embedding"], "residual": of["residual"], "head": head, "c": of["attention"]}
    return {name: to(number, F32) for name, number in found.items()}


def biased(config):
    """The linear layers that have a bias, by the last part of their names."""
    family = config["model_type"]
    if family == "gpt_neox":
        if not config.get("attention_bias", True):
            raise ValueError("attention_bias false: the page gives every linear layer of gpt_neox a bias")
        return frozenset({"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"})
    names = set()
    if family == "qwen2":
        names |= {"q_proj", "k_proj", "v_proj"}
    if family == "stablelm" and config.get("use_qkv_bias", False):
        names |= {"q_proj", "k_proj", "v_proj"}
    whole = ("llama", "granite", "smollm3")
    if family in (*whole, "qwen3", "olmo2", "gemma") and config.get("attention_bias", False):
        names |= {"q_proj", "k_proj", "v_proj", "o_proj"}
    if family in whole and config.get("mlp_bias", False):
        names |= {"gate_proj", "up_proj", "down_proj"}
    return frozenset(names)


class Model:
    """The checkpoint's numbers, each tensor made into integers when it is first asked for."""

    def __init__(self, config, tensors):
        self.shape = shape(config)
        self.tensors = tensors
        self.layers = config["num_hidden_layers"]
        self.made = {}

    def matrix(self, name):
        """Quantised rows."""
        if name not in self.made:
            self.made[name] = [quantised(row, Q15) for row in from_array(self.tensors[name])]
        return self.made[name]

    def vector(self, name):
        """A list of numbers below 2^120 in magnitude."""
        if name not in self.made:
            self.made[name] = from_array(self.tensors[name])
            quantised(self.made[name], Q15)  # only for its errors
        return self.made[name]

    def linear(self, row, name):
        last = name.rsplit(".", 1)[1]
        bias = self.vector(name + ".bias") if last in self.shape.biased else None
        r = self.shape.multipliers["residual"] if last in ("o_proj", "down_proj") else ONE
        return linear(row, self.matrix(name + ".weight"), bias, r)

    def norm(self, row, name):
        gain = self.vector(name + ".weight")
        if self.shape.family == "gemma":
            gain = [add(ONE, g) for g in gain]
        if self.shape.family in ("gpt_neox", "stablelm"):
            return layer_norm(row, gain, self.vector(name + ".bias"), self.shape.epsilon)
        return rms_norm(row, gain, self.shape.epsilon)


NEOX = {
    "embedding": "gpt_neox.embed_in",
    "layers": "gpt_neox.layers",
    "final": "gpt_neox.final_layer_norm",
    "output": "attention.dense",
    "up": "mlp.dense_h_to_4h",
    "down": "mlp.dense_4h_to_h",
}
LLAMA = {
    "embedding": "model.embed_tokens",
    "layers": "model.layers",
    "final": "model.norm",
    "output": "self_attn.o_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}


def in_heads(row, head_dim):
    return [row[i : i + head_dim] for i in range(0, len(row), head_dim)]


def queries_keys_values(model, row, layer):
    """Three lists of heads of one token, before turning."""
    of = model.shape
    if of.family == "gpt_neox":
        mixed = in_heads(model.linear(row, layer + "attention.query_key_value"), of.head_dim)
        return mixed[0::3], mixed[1::3], mixed[2::3]
    if of.family == "phi3":
        heads = in_heads(model.linear(row, layer + "self_attn.qkv_proj"), of.head_dim)
        first, second = of.heads, of.heads + of.kv_heads
        return heads[:first], heads[first:second], heads[second:]
    q, k, v = (model.linear(row, f"{layer}self_attn.{name}_proj") for name in "qkv")
    if of.family == "olmo2":
        q, k = model.norm(q, layer + "self_attn.q_norm"), model.norm(k, layer + "self_attn.k_norm")
    q, k, v = (in_heads(part, of.head_dim) for part in (q, k, v))
    if of.family == "qwen3":
        q = [model.norm(head, layer + "self_attn.q_norm") for head in q]
        k = [model.norm(head, layer + "self_attn.k_norm") for head in k]
    return q, k, v


def attention(model, rows, layer, tables, names):
    """A layer's attention over all tokens of a window; `tables` are empty where nothing turns."""
    of = model.shape
    cache, out = [], []
    for row, cosines, sines in zip(rows, *tables, strict=True):
        q, k, v = queries_keys_values(model, row, layer)
        queries = [quantised(turned(head, cosines, sines), Q15) for head in q]
        keys = [quantised(turned(head, cosines, sines), Q15) for head in k]
        cache.append((keys, [quantised(head, Q15) for head in v]))
        joined = []
        for h, query in enumerate(queries):
            reads = h * of.kv_heads // of.heads
            seen = [keys[reads] for keys, _ in cache], [values[reads] for _, values in cache]
            joined += attend(query, *seen, of.multipliers["c"])
        out.append(model.linear(joined, layer + names["output"]))
    return out


def mlp(model, row, layer, names):
    activation = ACTIVATIONS[model.shape.activation]
    if model.shape.family == "phi3":
        both = model.linear(row, layer + "mlp.gate_up_proj")
        gate, up = both[: len(both) // 2], both[len(both) // 2 :]
    else:
        up = model.linear(row, layer + names["up"])
        gate = None if model.shape.family == "gpt_neox" else model.linear(row, layer + "mlp.gate_proj")
    if gate is None:
        middle = [activation(x) for x in up]
    else:
        middle = [multiply(activation(g), x) for g, x in zip(gate, up, strict=True)]
    return model.linear(middle, layer + names["down"])


def logits(config, tensors, tokens):
    """Logits of every position of one window.

    `config` is config.json as a dict, `tensors` maps transformers' names to float32 arrays, `tokens` are the ids of a
    window. Returns a list over positions of lists of V 32-bit patterns of f32. Raises ArithmeticError where the page
    says error.
    """
    model = Model(config, tensors)
    of = model.shape
    neox = of.family == "gpt_neox"
    names = NEOX if neox else LLAMA
    turning = rotary_tables(frequencies_of_turning(of.rotary, of.base, of.scaling), len(tokens))
    still = [[[] for _ in tokens]] * 2
    embedding, r = model.matrix(names["embedding"] + ".weight"), of.multipliers["embedding"]
    xs = [[multiply((q, 0), scale(r, embedding[t][1])) for q in embedding[t][0]] for t in tokens]
    for number in range(model.layers):
        tables = turning if of.turned[number] else still
        layer = f"{names['layers']}.{number}."
        if of.family == "olmo2":
            ys = attention(model, xs, layer, tables, names)
            xs = [sum_rows(model.norm(y, layer + "post_attention_layernorm"), x) for x, y in zip(xs, ys, strict=True)]
            ys = [mlp(model, x, layer, names) for x in xs]
            xs = [sum_rows(model.norm(y, layer + "post_feedforward_layernorm"), x) for x, y in zip(xs, ys, strict=True)]
            continue
        ys = attention(model, [model.norm(x, layer + "input_layernorm") for x in xs], layer, tables, names)
        summed = [sum_rows(y, x) for x, y in zip(xs, ys, strict=True)]
        before = xs if of.parallel else summed
        ms = [mlp(model, model.norm(x, layer + "post_attention_layernorm"), layer, names) for x in before]
        if of.parallel:
            xs = [sum_rows(sum_rows(m, y), x) for m, y, x in zip(ms, ys, xs, strict=True)]
        else:
            xs = [sum_rows(m, x) for m, x in zip(ms, summed, strict=True)]
    head = embedding if of.tied else model.matrix(head_name(tensors))
    r = of.multipliers["head"]
    return [[to_bits(y) for y in linear(model.norm(x, names["final"]), head, None, r)] for x in xs]


def head_name(tensors):
    return "embed_out.weight" if "embed_out.weight" in tensors else "lm_head.weight"


# Section 8: from logits to intervals


def frequencies(row):
    """The V integer frequencies of one position, from the bit patterns of its logits."""
    row = [from_bits(bits) for bits in row]
    if any(e is None for _, e in row):
        raise ArithmeticError("a logit is infinite or a NaN")
    top = largest(row)
    out = []
    for value in row:
        (m, e), k = exponential(subtract(value, top))
        e += 24
        whole = m << e if e >= 0 else m >> -e
        out.append((whole << 14 >> -k >> 12) + 1)
    return out


def intervals(rows, tokens):
    """(start, frequency, total) of tokens[1:], each coded with the logits of the position before it."""
    out = []
    for row, token in zip(rows[:-1], tokens[1:], strict=True):
        of = frequencies(row)
        out.append((sum(of[:token]), of[token], sum(of)))
    return out
