"""What a GPU would do, counted: the page says what the script counts, and the library keeps to what it may start."""

import counting
import gpu_counts
import pytest
import torch
from gpu_counts import H100, counted
from meta_models import ALL, PYTHIA, WRITTEN, Shape, floating, ids_of, model_of

from bitlaw.compression import torch_scoring
from bitlaw.models import gpt_neox, llm_int8
from repository import ROOT

NON_EMBEDDING = {  # as the model cards print them
    "70m": 18_915_328,
    "160m": 85_056_000,
    "410m": 302_311_424,
    "1b": 805_736_448,
    "1.4b": 1_208_602_624,
    "2.8b": 2_517_652_480,
    "6.9b": 6_444_163_072,
    "12b": 11_327_027_200,
}


@pytest.mark.parametrize("table", gpu_counts.TABLES)
def test_the_page_shows_the_tables_that_the_script_prints(table):
    assert "\n".join(table()) in (ROOT / "docs/cost.md").read_text()


@pytest.mark.parametrize("name", NON_EMBEDDING)
def test_parameters_are_those_of_the_model_cards(name):
    assert gpu_counts.parameters(PYTHIA[name])[1] == NON_EMBEDDING[name]


# --- the counter ----------------------------------------------------------------------------------------------------


def meta(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="meta")


def test_a_kernel_is_its_bytes_and_its_products():
    a, b = meta(6, 10, dtype=torch.float16), meta(10, 4, dtype=torch.float16)
    with counting.Counter() as counter:
        product = a @ b
        product.t().add_(1)
        product.fill_(0)
        product[:3].copy_(product[3:])
        a.index_select(0, torch.zeros(2, dtype=torch.int64, device="meta"))
    assert counter.kernels == [
        ("mm", 1, 2 * (60 + 40 + 24), 2 * 6 * 10 * 4, 0),
        ("add_", 1, 2 * (24 + 24), 0, 0),
        ("fill_", 1, 2 * 24, 0, 0),
        ("copy_", 1, 2 * (12 + 12), 0, 0),
        ("zeros", 1, 16, 0, 0),
        ("index_select", 1, 2 * (20 + 20) + 16, 0, 0),
    ]
    assert counter.starts == 6


def test_memory_is_that_of_the_tensors_that_are_alive():
    with counting.Counter() as counter:
        first = meta(1000)
        second = first + 1
        third = second.view(10, 100)
        del second, third
        fourth = first * 2
    assert counter.peak == counter.live == 2 * 4096
    del fourth
    assert counter.live == 4096


def test_attention_is_one_kernel_that_leaves_out_what_is_masked():
    q, k, v = (meta(2, 3, 5, 8, dtype=torch.float16) for _ in range(3))
    with torch.inference_mode(), counting.Counter() as counter:  # as the library's passes
        torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert counter.kernels == [("attention", 1, 4 * 2 * 2 * 3 * 5 * 8, 2 * 2 * (2 * 3 * 8 * 15), 0)]


@pytest.mark.parametrize(
    "asks",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).all()),
        lambda x: x.cpu(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: torch.zeros(3).copy_(x),
    ],
)
def test_what_would_wait_for_the_device_is_refused(asks):
    with pytest.raises(counting.Waits), counting.Counter():
        asks(meta(3))


def test_tensors_of_two_devices_are_refused():
    with pytest.raises(counting.TwoDevices), counting.Counter():
        meta(3) + torch.zeros(3)
    with counting.Counter() as counter:
        meta(3) + torch.tensor(1.0)  # a number
        meta(3).copy_(torch.zeros(3))
    assert counter.starts == 2


def test_a_pass_takes_as_long_as_its_kernels_start_or_the_card_computes():
    small = gpu_counts.tally([counting.Kernel("add", 1, 1000, 0, 0)] * 10)
    assert small.seconds == pytest.approx(10 * gpu_counts.LAUNCH)
    product = gpu_counts.tally([counting.Kernel("mm", 1, 1000, 989 * 10**9, 1979 * 10**9)])
    assert product.seconds == pytest.approx(2 * 2e-3)
    assert gpu_counts.tally([counting.Kernel("add", 1, 3_350_000_000, 0, 0)]).seconds == pytest.approx(2e-3)


# --- the library's passes -------------------------------------------------------------------------------------------


@pytest.fixture
def shape(monkeypatch):
    """A small shape under the name "tiny"; returns it."""
    monkeypatch.setitem(PYTHIA, "tiny", shape := Shape(64, 4, 4, 1024))
    return shape


def test_operations_are_two_for_each_weight_that_multiplies_a_token_and_attention_to_half_of_the_chunk(shape):
    model = floating(shape, 4, "fp16")
    counter = counted(lambda: model.hidden(ids_of(3, 10)))
    matrices = 4 * (3 + 1 + 4 + 4) * 64 * 64
    seen = sum(range(1, 11))  # positions that ten tokens look at
    assert sum(kernel.flops for kernel in counter.kernels) == 3 * (2 * 10 * matrices + 4 * 2 * 2 * 64 * seen)
    logits = counted(lambda: model.head(meta(9, 64, dtype=torch.float16)))
    assert sum(kernel.flops for kernel in logits.kernels) == 2 * 9 * 1024 * 64


@pytest.mark.parametrize("precision", ["int8", "exact"])
def test_products_in_eight_bits_are_counted_as_such(shape, precision):
    model = model_of("tiny", 4, precision)
    kernels = counted(lambda: model.hidden(ids_of(1, 16)), WRITTEN).kernels
    linear = sum(kernel.int8 for kernel in kernels if kernel.name in ("int8_scaled_mm", "linear"))
    assert linear == (4 if precision == "exact" else 1) * 2 * 16 * 4 * 12 * 64 * 64


def test_layers_are_alike(shape):
    for precision in ("fp16", "int8", "exact"):
        whole = model_of("tiny", 4, precision)
        found = gpu_counts.tally(counted(lambda model=whole: model.hidden(ids_of(2, 40))).kernels)
        added = gpu_counts.one_pass.__wrapped__("tiny", precision, 40, 0, 2) * 80
        assert added == pytest.approx(found)


@pytest.mark.parametrize("name", ["70m", "1.4b"])
def test_passes_start_few_kernels_a_layer(name):
    """None waits for the device or mixes devices, either: a counter refuses that."""
    layers = PYTHIA[name].layers
    for precision in ("fp16", "int8"):
        assert gpu_counts.one_pass(name, precision, 1024, together=16).starts * 16 * 1024 <= 30 * layers
    # LLM.int8() at a threshold is above that, but sequences pass together
    assert gpu_counts.one_pass(name, "study", 1024, together=16).starts * 16 * 1024 <= 120 * layers
    assert gpu_counts.one_pass(name, "exact", 1024, ALL, 16).starts * 16 * 1024 <= 45 * layers
    assert gpu_counts.step(name, "fp16", 1000).starts <= 20 * layers
    assert gpu_counts.step(name, "int8", 1000).starts <= 26 * layers


def test_a_pass_at_a_threshold_waits_once_when_it_has_ended(shape):
    model = llm_int8.WithOutliers(floating(shape, 2, "int8"), 6.0)
    assert counted(lambda: gpt_neox.NeoX.hidden(model, ids_of(2, 8))).starts
    with pytest.raises(counting.Waits, match="_local_scalar_dense|_to_copy"):
        counted(lambda: model.hidden(ids_of(2, 8)))


def test_logits_are_read_few_times():
    kernels, moved = gpu_counts.from_logits(torch_scoring._intervals, WRITTEN)
    assert kernels == 1 and moved <= 16
    kernels, moved = gpu_counts.from_logits(torch_scoring._code_lengths, 0)
    assert kernels <= 10 and moved <= 17
    assert gpu_counts.from_logits(torch_scoring._intervals, 0)[1] > 300  # without kernels


@pytest.mark.parametrize("precision", ["fp16", "int8", "exact"])
def test_every_model_fits_a_card_of_80_gb(precision):
    for name in PYTHIA:
        assert gpu_counts.needed(name, precision) <= H100.memory
        held = gpu_counts.memory(name, precision)["weights"]
        total, blocks = gpu_counts.parameters(PYTHIA[name])
        assert held == pytest.approx(2 * total - (blocks if precision == "int8" else 0), rel=0.05)


def test_a_matrix_after_the_other_is_quantised(shape):
    found = counted(lambda: floating(shape, 4, "int8"))
    assert found.peak - found.held <= 2 * 4 * 64 * 64 * 2  # one matrix in 16 bits, twice at the most
    assert counted(lambda: floating(shape, 4, "fp16")).held > found.peak


@pytest.mark.parametrize("precision", ["fp16", "int8", "exact"])
def test_a_pass_keeps_nothing_of_its_layers(shape, precision):
    peaks = set()
    for layers in (2, 4):
        model = model_of("tiny", layers, precision)
        peaks.add(counted(lambda model=model: model.hidden(ids_of(4, 100))).peak)
    assert len(peaks) == 1
