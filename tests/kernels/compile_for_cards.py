"""Compile every kernel for a card that need not be there and print, as JSON, what the machine code is made of.

    python tests/kernels/compile_for_cards.py 90 [contracted]

Of each kernel: its PTX instructions of floating point and of matrix products. `contracted`: with permission to make
fused multiply-adds, which kernels never have, to see that such code looks different. Triton must not interpret here.
"""

import json
import re
import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bitlaw.compression import interval_kernel
from bitlaw.models.exact import attention_kernel, kernels

INSTRUCTION = re.compile(r"^\s*(?:@%p\d+ )?([a-z_]+\.[\w.:]*?(?:f32|f64|s8\.s8)\b[\w.]*)\s", re.M)


def compiled(kernel, capability, types, constants, options):
    """PTX instructions, each once, of a kernel whose pointers and strides are multiples of 16."""
    names = kernel.arg_names
    signature = {name: types.get(name, "constexpr") for name in names}
    aligned = [name for name in names if signature[name].startswith("*") or re.search("stride|_digit$", name)]
    attributes = {(names.index(name),): [["tt.divisibility", 16]] for name in aligned}
    source = ASTSource(kernel, signature, {(names.index(n),): v for n, v in constants.items()}, attributes)
    target = GPUTarget("cuda", capability, 32)
    ptx = triton.compile(source, target=target, options=options | kernels.UNFUSED).asm["ptx"]
    return sorted(set(INSTRUCTION.findall(ptx)))


def variants():
    """(title, kernel, types of arguments, constants, options)"""
    types = dict.fromkeys(("stride", "rows", "count", "digit_stride", "width"), "i32")
    types |= {"x": "*fp32", "digits": "*i8", "scales": "*fp32"}
    for width in (64, 2048):
        block, rows = kernels.row_tiles(width)
        yield f"digits of rows, {width}", kernels._digits_of_rows, types, {"ROWS": rows, "BLOCK": block}, {}
    types = dict.fromkeys(("x_digit", "w_digit", "out_stride", "rows", "outputs", "columns", "inputs"), "i32")
    types |= {"x": "*i8", "w": "*i8"} | dict.fromkeys(("x_scales", "w_scales", "biases", "out"), "*fp32")
    for rows in (1, 64, 4096):
        tile, block, depth, together, warps, stages = kernels.linear_tiles(rows)
        constants = {"ROWS": tile, "OUTPUTS": block, "INPUTS_": depth, "TOGETHER": together}
        options = {"num_warps": warps, "num_stages": stages}
        yield f"linear, {rows} rows", kernels._linear, types, constants, options
    types = dict.fromkeys(("q_digit", "past", "tokens", "positions"), "i32") | dict.fromkeys(("q", "k", "v"), "*i8")
    types |= dict.fromkeys(("q_scales", "k_scales", "v_scales", "out"), "*fp32")
    for tokens, size in ((1, 64), (1000, 10), (1000, 80), (1000, 256)):
        width = max(32, triton.next_power_of_2(size))
        queries, keys, warps, stages = attention_kernel.tiles(tokens, width)
        constants = {"HEADS": 8, "KV_HEADS": 4, "SIZE": size, "PADDED": -(-size // 16) * 16}
        constants |= {"QUERIES": queries, "KEYS": keys, "WIDTH": width}
        options = {"num_warps": warps, "num_stages": stages}
        yield f"attention, {tokens} tokens, {size}", attention_kernel._attend, types, constants, options
    types = {"logits": "*fp32", "stride": "i32", "targets": "*i64", "out": "*i64", "rows": "i32", "vocabulary": "i32"}
    yield "intervals", interval_kernel._intervals, types, {"BLOCK": interval_kernel.BLOCK}, {"num_warps": 8}


if __name__ == "__main__":
    capability = int(sys.argv[1])
    kernels.UNFUSED["enable_fp_fusion"] = "contracted" in sys.argv
    print(json.dumps({title: compiled(kernel, capability, *given) for title, kernel, *given in variants()}))
