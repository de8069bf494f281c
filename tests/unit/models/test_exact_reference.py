"""The slow reference of docs/arithmetic.md against what is known without it: numpy's operations, real functions,
and transformers' logits."""

import decimal
import json
import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
import transformers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import exact_reference as reference
from exact_reference import F32, F64, INFINITY, MINUS_INFINITY, NAN

DECIMAL = decimal.Context(prec=80)
KINDS = {F32: (np.float32, np.uint32, 32), F64: (np.float64, np.uint64, 64)}
PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534211706798")


def of_numpy(x):
    """A number of the reference from a numpy scalar, or a Fraction that equals it."""
    if np.isnan(x):
        return NAN
    if np.isinf(x):
        return INFINITY if x > 0 else MINUS_INFINITY
    return Fraction(*x.as_integer_ratio())


def of_reference(a):
    return a if a[1] is None else reference.exact(a)


def numbers(kind):
    """numpy scalars of a format: any bits, and numbers near each other in size, whose sums and ratios round."""
    scalar, unsigned, width = KINDS[kind]
    fraction, bias = kind.precision - 1, 2 ** (width - kind.precision - 1) - 1

    def built(sign, exponent, mantissa):
        return unsigned(sign << (width - 1) | (bias + exponent) << fraction | mantissa).view(scalar)

    mantissas = st.one_of(
        st.integers(0, 2**fraction - 1),
        st.builds(lambda k, up: (1 << k) - up, st.integers(1, fraction - 1), st.integers(0, 1)),
    )
    close = st.builds(built, st.integers(0, 1), st.integers(-kind.precision - 2, kind.precision + 2), mantissas)
    any_bits = st.integers(0, 2**width - 1).map(lambda b: unsigned(b).view(scalar))
    small = st.integers(0, 2 ** (fraction + 1)).map(lambda b: unsigned(b).view(scalar))
    return st.one_of(close, any_bits, small)


def number(x, kind):
    """A numpy scalar as the reference's pair."""
    value = of_numpy(x)
    return reference.nearest(value, kind) if isinstance(value, Fraction) else value


# Rounding and operations


@pytest.mark.parametrize("kind", [F32, F64], ids=["f32", "f64"])
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_operations_are_numpys(kind, data):
    a, b = data.draw(numbers(kind)), data.draw(numbers(kind))
    x, y = number(a, kind), number(b, kind)
    with np.errstate(all="ignore"):
        assert of_reference(reference.add(x, y, kind)) == of_numpy(a + b)
        assert of_reference(reference.subtract(x, y, kind)) == of_numpy(a - b)
        assert of_reference(reference.multiply(x, y, kind)) == of_numpy(a * b)
        if np.isfinite(b) and b != 0:
            assert of_reference(reference.divide(x, y, kind)) == of_numpy(a / b)
        if np.isfinite(a) and a >= 0:
            assert of_reference(reference.square_root(x, kind)) == of_numpy(np.sqrt(a))
        assert reference.greater(x, y) == (a > b)


@settings(max_examples=200, deadline=None)
@given(numbers(F64))
@example(np.float64(2**24 + 1))
@example(np.float64(2**24 + 3))
@example(np.float64(2.0**-150))
@example(np.float64(3 * 2.0**-150))
@example(np.nextafter(np.float64(2.0**-150), 1))
@example(np.float64(np.finfo(np.float32).max) + 2.0**103)
@example(np.nextafter(np.float64(np.finfo(np.float32).max) + 2.0**103, 0))
def test_f64_to_f32_rounds_as_numpy(x):
    with np.errstate(all="ignore"):
        assert of_reference(reference.to(number(x, F64), F32)) == of_numpy(np.float32(x))


@settings(max_examples=200, deadline=None)
@given(st.integers(-(2**63), 2**63 - 1))
@example(2**53 + 1)
@example(2**53 + 3)
@example(2**62 - 1)
@example(2**24 + 1)
def test_integers_round_as_numpys(n):
    assert of_reference(reference.rounded(n, 0, F32)) == of_numpy(np.int64(n).astype(np.float32))
    assert of_reference(reference.rounded(n, 0, F64)) == of_numpy(np.int64(n).astype(np.float64))


@settings(max_examples=200, deadline=None)
@given(st.fractions(min_value=-(10**6), max_value=10**6))
def test_fractions_round_as_pythons_division(value):
    # int / int of Python rounds correctly
    assert reference.exact(reference.nearest(value, F64)) == Fraction(value.numerator / value.denominator)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1))
@example(0x00000001)
@example(0x007FFFFF)
@example(0x00800000)
@example(0x7F7FFFFF)
@example(0xFF800000)
def test_bits_come_back(bits):
    x = np.uint32(bits).view(np.float32)
    number_of = reference.from_bits(bits)
    assert of_reference(number_of) == of_numpy(x)
    expected = 0x7FC00000 if np.isnan(x) else 0 if x == 0 else bits
    assert reference.to_bits(number_of) == expected


@settings(max_examples=300, deadline=None)
@given(st.integers(-(10**9), 10**9), st.integers(-40, 3))
def test_shifts_round_to_even(m, places):
    assert reference.shifted(m, places) == round(Fraction(m) * Fraction(2) ** places)


# Rows of integers


@settings(max_examples=300, deadline=None)
@given(st.lists(numbers(F32).filter(lambda x: abs(x) < np.float32(2.0**120)), min_size=1, max_size=8))
def test_quantised_rows_are_as_near_as_they_can_be(row):
    pairs = [number(x, F32) for x in row]
    for width, bits in ((reference.Q15, 14), (reference.Q24, 23)):
        q, e = reference.quantised(pairs, width)
        unit = Fraction(2) ** e
        assert max(map(abs, q)) <= 2**bits
        assert max(map(abs, q)) >= 2 ** (bits - 1) or e == 80 - width
        assert all(abs(of_numpy(x) - i * unit) <= unit / 2 for x, i in zip(row, q, strict=True))


@pytest.mark.parametrize("bad", [0x7B800000, 0xFB800000, 0x7F800000, 0xFF800000, 0x7FC00000])
def test_rows_out_of_range_are_errors(bad):
    good = reference.from_bits(0x7B7FFFFF)
    assert reference.quantised([good], reference.Q15)[1] == 106
    with pytest.raises(ArithmeticError):
        reference.quantised([good, reference.from_bits(bad)], reference.Q15)


# Named functions


def f32s(low, high):
    return st.floats(low, high, width=32).map(lambda x: number(np.float32(x), F32))


def real(a):
    value = reference.exact(a)
    return DECIMAL.divide(Decimal(value.numerator), Decimal(value.denominator))


def real_erf(x):
    with decimal.localcontext(DECIMAL):
        term, total, k = x, x, 0
        while abs(term) > Decimal("1e-40"):
            k += 1
            term *= -x * x / k
            total += term / (2 * k + 1)
        return total * 2 / PI.sqrt()


@settings(max_examples=300, deadline=None)
@given(f32s(-41.5, 0))
def test_exponential_is_that_of_the_real_numbers(d):
    p, k = reference.exponential(d)
    found, expected = reference.exact(p) * Fraction(2) ** k, Fraction(real(d).exp(DECIMAL))
    assert abs(found / expected - 1) <= Fraction(1, 10**7) * (2 + abs(reference.exact(d)))
    assert found <= 1


@pytest.mark.parametrize("d", [MINUS_INFINITY, (-100, 0), (-60, 0)])
def test_exponential_ends_at_two_to_the_minus_sixty(d):
    p, k = reference.exponential(d)
    assert (reference.exact(p), k) == (1, -60)


@settings(max_examples=300, deadline=None)
@given(f32s(-40, 40))
def test_sigmoid_is_that_of_the_real_numbers(u):
    expected = 1 / (1 + Fraction((-real(u)).exp(DECIMAL)))
    found = reference.exact(reference.sigmoid(u))
    assert abs(found / expected - 1) <= Fraction(1, 10**7) * (4 + abs(reference.exact(u)))


@settings(max_examples=300, deadline=None)
@given(f32s(-5, 5))
def test_error_function_is_that_of_the_real_numbers(a):
    assert abs(reference.exact(reference.erf(a)) - Fraction(real_erf(real(a)))) <= Fraction(4, 10**7)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("gelu", torch.nn.functional.gelu),
        ("gelu_new", lambda x: torch.nn.functional.gelu(x, approximate="tanh")),
        ("silu", torch.nn.functional.silu),
    ],
)
def test_activations_are_torchs(name, function):
    xs = np.concatenate([np.linspace(-12, 12, 401), [-1e3, 1e3, 1e-20]]).astype(np.float32)
    found = [float(reference.exact(reference.ACTIVATIONS[name](number(x, F32)))) for x in xs]
    expected = function(torch.from_numpy(xs).double()).numpy()
    assert np.all(np.abs(found - expected) <= 5e-7 * (1 + np.abs(xs)))


# Norms


def test_norms_are_torchs():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=48) * 3 + 1).astype(np.float32)
    gain, bias = rng.normal(size=(2, 48)).astype(np.float32)
    pairs, g, b = (reference.from_array(a) for a in (x, gain, bias))
    tensor, weight = torch.from_numpy(x).double(), torch.from_numpy(gain).double()
    epsilon = reference.from_config(1e-5)
    layer = torch.nn.functional.layer_norm(tensor, (48,), weight, torch.from_numpy(bias).double(), 1e-5)
    rms = torch.nn.functional.rms_norm(tensor, (48,), weight, 1e-5)
    for found, expected in (
        (reference.layer_norm(pairs, g, b, epsilon), layer),
        (reference.rms_norm(pairs, g, epsilon), rms),
    ):
        assert np.allclose([float(reference.exact(y)) for y in found], expected.numpy(), rtol=0, atol=2e-6)


def test_a_row_of_zeros_has_the_deviation_of_epsilon():
    zeros = [reference.ZERO] * 4
    assert reference.rms_norm(zeros, [reference.ONE] * 4, reference.from_config(1e-20)) == zeros


# Rotary tables


def test_cosines_and_sines_are_those_of_the_real_numbers():
    ws = reference.frequencies_of_turning(48, reference.from_config(10000.0), None)
    cosines, sines = reference.rotary_tables(ws, 40)
    for n in range(40):
        for j, w in enumerate(ws):
            angle = n * float(reference.exact(w))
            # an f32 of 30 bits: 2^-25 for numbers above one half
            for found, function in ((cosines[n][j], math.cos), (sines[n][j], math.sin)):
                assert abs(float(reference.exact(found)) - function(angle)) <= 2**-25 + 1e-9


@settings(max_examples=300, deadline=None)
@given(st.fractions(0, 2**17), st.integers(0, 3))
def test_sine_and_cosine_before_their_rounding(theta, places):
    angle = reference.nearest(theta / 10**places, F32)
    sin, cos = (x / 2**reference.BITS for x in reference.sine_and_cosine(angle))
    at = float(reference.exact(angle))
    assert abs(sin - math.sin(at)) <= 1e-9
    assert abs(cos - math.cos(at)) <= 1e-9


@settings(max_examples=200, deadline=None)
@given(st.floats(1.5, 1e8), st.integers(0, 127), st.integers(128, 256))
def test_powers_of_the_base_are_the_nearest(base, part, whole):
    a = reference.divide((part, 0), (whole, 0))
    found = reference.exact(reference.power(reference.from_config(base), a))
    with decimal.localcontext(DECIMAL):
        expected = Fraction((Decimal(base).ln() * real(a)).exp())
    assert found == reference.exact(reference.nearest(expected, F32))


def test_a_power_halfway_between_two_numbers_goes_to_the_even_one():
    root = 2**24 + 1  # its square is an f64
    found = reference.power(reference.from_config(float(root**2)), (1, -1))
    assert reference.exact(found) == 2**24


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "linear", "factor": 3.0},
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 512,
        },
    ],
    ids=lambda s: s["rope_type"],
)
def test_scaled_frequencies_are_those_of_transformers(scaling):
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = transformers.LlamaConfig(
        hidden_size=128, num_attention_heads=2, rope_parameters={"rope_theta": 500000.0} | scaling
    )
    expected, _ = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](config, "cpu")
    ws = reference.frequencies_of_turning(64, reference.from_config(500000.0), scaling)
    plain = reference.frequencies_of_turning(64, reference.from_config(500000.0), None)
    assert ws != plain
    assert np.allclose([float(reference.exact(w)) for w in ws], expected.numpy(), rtol=1e-6, atol=0)


# Whole models

SIZE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
TURNING = {"rope_theta": 10000.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
MODELS = {
    "gpt_neox": ("gpt_neox", {"rotary_pct": 0.25, "layer_norm_eps": 1e-5}),
    "gpt_neox one after the other": (
        "gpt_neox",
        {"rotary_pct": 0.5, "use_parallel_residual": False, "hidden_act": "gelu_new"},
    ),
    "llama": ("llama", {"rms_norm_eps": 1e-5}),
    "llama with biases, linear": (
        "llama",
        {
            "attention_bias": True,
            "mlp_bias": True,
            "num_key_value_heads": 1,
            "rope_parameters": TURNING | {"rope_type": "linear", "factor": 2.5},
        },
    ),
    "llama3, tied": (
        "llama",
        {
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
            "rope_parameters": TURNING | LLAMA3,
        },
    ),
    "mistral": ("mistral", {"num_key_value_heads": 2, "head_dim": 6}),
    "qwen2": ("qwen2", {"num_key_value_heads": 2}),
    "qwen3": ("qwen3", {"num_key_value_heads": 2, "head_dim": 16, "attention_bias": True}),
    "olmo2": ("olmo2", {"num_key_value_heads": 2, "attention_bias": True}),
    "stablelm": ("stablelm", {"num_key_value_heads": 2, "use_qkv_bias": True}),
    "phi3": ("phi3", {"num_key_value_heads": 2, "rope_parameters": TURNING | {"partial_rotary_factor": 0.75}}),
    "granite": (
        "granite",
        {"num_key_value_heads": 2, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}
        | {"embedding_multiplier": 12.0, "attention_multiplier": 0.1}
        | {"residual_multiplier": 0.22, "logits_scaling": 1.5},
    ),
    "smollm3": ("smollm3", {"num_key_value_heads": 2, "no_rope_layer_interval": 2}),
    "gemma": ("gemma", {"num_key_value_heads": 2, "head_dim": 6}),
}
TOKENS = [3, 17, 5, 5, 60, 0, 31, 63, 8, 17, 42, 2]


@pytest.fixture(scope="module", params=MODELS)
def checkpoint(request, tmp_path_factory):
    """(config.json as a dict, tensors, transformers' logits in float32)."""
    family, changed = MODELS[request.param]
    torch.manual_seed(list(MODELS).index(request.param))
    config = transformers.AutoConfig.for_model(family, **(SIZE | changed))
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.ndim == 2:
                tensor.normal_(std=0.3)
            else:
                tensor += 0.3 * torch.randn_like(tensor)
        expected = model(torch.tensor([TOKENS]), use_cache=False).logits[0].numpy()
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    tensors = {name: t.float().numpy() for name, t in load_file(folder / "model.safetensors").items()}
    return json.loads((folder / "config.json").read_text()), tensors, expected


@pytest.fixture(scope="module")
def bits(checkpoint):
    config, tensors, _ = checkpoint
    return reference.logits(config, tensors, TOKENS)


def largest_difference(bits, expected):
    """In standard deviations of the logits."""
    assert expected.std() > 0.5  # else the comparison says little
    difference = np.abs(np.array(bits, dtype=np.uint32).view(np.float32) - expected).max()
    print(f"largest difference {difference:.2g}, standard deviation of the logits {expected.std():.2g}")
    return difference / expected.std()


def test_logits_are_close_to_those_of_transformers(checkpoint, bits):
    assert largest_difference(bits, checkpoint[2]) <= 5e-3


def test_with_wider_integers_the_logits_are_those_of_transformers(checkpoint, monkeypatch):
    """What separates the two is the rounding to 15 bits, and nothing in the order of layers, heads or norms."""
    config, tensors, expected = checkpoint
    monkeypatch.setattr(reference, "Q15", reference.Q15 + 16)
    assert largest_difference(reference.logits(config, tensors, TOKENS), expected) <= 2e-5


def test_a_token_depends_only_on_those_before_it(checkpoint, bits):
    config, tensors, _ = checkpoint
    assert reference.logits(config, tensors, [*TOKENS[:4], 1, 2])[:4] == bits[:4]


def test_intervals_are_the_probabilities(bits):
    logits = torch.from_numpy(np.array(bits, dtype=np.uint32).view(np.float32)).double()
    probabilities = logits.softmax(-1).numpy()
    of = reference.intervals(bits, TOKENS)
    for i, (token, (start, frequency, total)) in enumerate(zip(TOKENS[1:], of, strict=True)):
        assert abs(frequency / total - probabilities[i, token]) <= 2e-6
        assert abs(start / total - probabilities[i, :token].sum()) <= 4e-6


def test_frequencies_are_of_twenty_six_bits():
    row = [reference.to_bits(x) for x in ((0, 0), (-1, 0), (-1000, 0), (-1, 127))]
    first, second, third, fourth = reference.frequencies(row)
    assert (first, third, fourth) == (2**26 + 1, 1, 1)
    assert abs(second - 1 - 2**26 * math.exp(-1)) < 16
    with pytest.raises(ArithmeticError):
        reference.frequencies([*row, 0x7F800000])


def test_turning_is_read_from_older_configurations_too(checkpoint, bits):
    config, tensors, _ = checkpoint
    old = {name: value for name, value in config.items() if name != "rope_parameters"}
    scaling = dict(config["rope_parameters"])
    if config["model_type"] == "gpt_neox":
        old |= {"rotary_emb_base": scaling.pop("rope_theta"), "rotary_pct": scaling.pop("partial_rotary_factor")}
    else:
        old["rope_theta"] = scaling.pop("rope_theta")
        old |= {key: scaling.pop(key) for key in ("partial_rotary_factor",) if key in scaling}
    scaling["type"] = scaling.pop("rope_type")
    old["rope_scaling"] = None if scaling["type"] == "default" else scaling
    assert reference.logits(old, tensors, TOKENS[:4]) == bits[:4]


@pytest.mark.parametrize("part", ["embed", "norm"])
def test_a_weight_out_of_range_is_an_error(checkpoint, part):
    config, tensors, _ = checkpoint
    name = next(name for name in tensors if part in name and name.endswith("weight"))
    bad = tensors[name].copy()
    bad.flat[-1] = 2.0**120
    with pytest.raises(ArithmeticError):
        reference.logits(config, tensors | {name: bad}, TOKENS)
