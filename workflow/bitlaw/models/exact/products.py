"""Exact products of rows with int16 matrices, in vector instructions of the machine at hand.

A matrix of integers |w| <= 2^14 is packed so that sixteen outputs lie side by side and two inputs follow each other:
`[blocks, pairs, 16, 2]` int16, padded with zeros. A row of integers is split into signed digits to base 256. Then two
digits times two weights, summed, are what a processor does in one instruction (vpdpwssd, or vpmaddwd and an addition),
sixteen outputs at a time, and the sums of 512 such products fit in 32 bits: |w·digit| <= 2^21. Longer sums are carried
on in float64, exact below 2^53. The kernel is written in LLVM's vectors, not in one processor's instructions, so that
it gives the same integers on all of them.
"""

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

from bitlaw.runtime.compiling import compiled, not_inlined

LANES = 16  # outputs side by side
PAIRS = 256  # that fit in 32 bits
GROUP = 8  # rows are computed in whole groups: there must be room for them
SINGLE = 4  # blocks of a row on its own


def _rows_together():
    """Rows that share a load of weights: as many as the sums fit into the vector registers of this processor."""
    features = config.CPU_FEATURES
    features = llvm.get_host_cpu_features().flatten() if features is None else features
    return 8 if "+avx512bw" in features else 2


TOGETHER = _rows_together()


def pack(matrix):
    """int16 `[outputs, inputs]` as `[blocks, pairs, 16, 2]`, padded with zeros."""
    outputs, inputs = matrix.shape
    padded = np.zeros((-(-outputs // LANES) * LANES, inputs + inputs % 2), dtype=np.int16)
    padded[:outputs, :inputs] = matrix
    blocks = padded.reshape(-1, LANES, padded.shape[1] // 2, 2)
    return np.ascontiguousarray(blocks.transpose(0, 2, 1, 3))


def unpack(packed, outputs, inputs, dtype=np.float64):
    """The matrix `[outputs, inputs]` of `pack`, as `dtype`."""
    blocks, pairs = packed.shape[:2]
    matrix = np.empty((blocks, LANES, pairs, 2), dtype=dtype)
    matrix[:] = packed.transpose(0, 2, 1, 3)
    return matrix.reshape(blocks * LANES, 2 * pairs)[:outputs, :inputs]


# --- the kernel, for a fixed number of rows and of blocks -----------------------------------------------------------

_I16, _I32, _I64, _F32, _F64 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType(), ir.DoubleType()


def _vector(element, count):
    return ir.VectorType(element, count)


def _indices(numbers):
    return ir.Constant(_vector(_I32, len(numbers)), [ir.Constant(_I32, n) for n in numbers])


def _splat(builder, scalar, count):
    empty = ir.Constant(_vector(scalar.type, count), ir.Undefined)
    first = builder.insert_element(empty, scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, empty, _indices([0] * count))


def _load(builder, pointer, kind, align):
    found = builder.load(builder.bitcast(pointer, kind.as_pointer()))
    found.align = align
    return found


def _kernel(rows, blocks, digits, column_scales, biases):
    """A function of compiled code; the flags say which of its last steps it has.

    tile(weights, block, pairs, x, row, row_scales, column_scales, biases, out) for weights int16
    `[blocks, >= pairs, 16, 2]`, x int16 `[rows, digits, inputs]`, highest digit first, and float32 row_scales `[rows]`,
    column_scales and biases `[outputs]`, out `[rows, outputs]`, all C-contiguous: fills `rows` rows from `row` and
    `blocks` blocks of outputs from `block` with (float32(sum) · row scale) · column scale + bias.
    """

    def generate(context, builder, signature, arguments):
        arrays = [
            context.make_array(kind)(context, builder, value) if isinstance(kind, types.Array) else value
            for kind, value in zip(signature.args, arguments, strict=True)
        ]
        weights, block, pairs, x, row, row_scales, columns, bias, out = arrays
        sums, halves, wide = _vector(_I32, LANES), _vector(_I16, 2 * LANES), _vector(_I32, 2 * LANES)
        exact = _vector(_F64, LANES)

        def number(n):
            return ir.Constant(_I64, n)

        def stride(array, axis, size):  # in elements
            return builder.sdiv(builder.extract_value(array.strides, axis), number(size))

        def shifted(pointer, *terms):
            for term in terms:
                pointer = builder.gep(pointer, [term])
            return pointer

        block_stride, row_stride, digit_stride = stride(weights, 0, 2), stride(x, 0, 2), stride(x, 1, 2)
        w_at = [shifted(weights.data, builder.mul(builder.add(block, number(b)), block_stride)) for b in range(blocks)]
        x_at = [
            [
                shifted(
                    x.data,
                    builder.mul(builder.add(row, number(r)), row_stride),
                    builder.mul(number(d), digit_stride),
                )
                for d in range(digits)
            ]
            for r in range(rows)
        ]
        cells = [(r, b) for r in range(rows) for b in range(blocks)]
        small = {(c, d): cgutils.alloca_once(builder, sums) for c in cells for d in range(digits)}
        large = {c: cgutils.alloca_once(builder, exact) for c in cells}
        for c in cells:
            builder.store(ir.Constant(exact, None), large[c])
        chunks = builder.udiv(builder.add(pairs, number(PAIRS - 1)), number(PAIRS))
        with cgutils.for_range(builder, chunks) as outer:
            first = builder.mul(outer.index, number(PAIRS))
            left = builder.sub(pairs, first)
            count = builder.select(builder.icmp_signed("<", left, number(PAIRS)), left, number(PAIRS))
            for accumulator in small.values():
                builder.store(ir.Constant(sums, None), accumulator)
            with cgutils.for_range(builder, count) as inner:
                pair = builder.add(first, inner.index)
                w_offset, x_offset = builder.mul(pair, number(2 * LANES)), builder.mul(pair, number(2))
                w = [builder.sext(_load(builder, shifted(p, w_offset), halves, 2), wide) for p in w_at]
                for r in range(rows):
                    for d in range(digits):
                        two = _splat(builder, _load(builder, shifted(x_at[r][d], x_offset), _I32, 2), LANES)
                        two = builder.sext(builder.bitcast(two, halves), wide)
                        for b in range(blocks):
                            product = builder.mul(w[b], two)
                            even, odd = (
                                builder.shuffle_vector(
                                    product, ir.Constant(wide, ir.Undefined), _indices(range(i, 2 * LANES, 2))
                                )
                                for i in (0, 1)
                            )
                            accumulator = small[(r, b), d]
                            builder.store(builder.add(builder.load(accumulator), builder.add(even, odd)), accumulator)
            base = _splat(builder, ir.Constant(_F64, 256.0), LANES)
            for c in cells:
                total = builder.sitofp(builder.load(small[c, 0]), exact)
                for d in range(1, digits):
                    total = builder.fmul(total, base)
                    total = builder.fadd(total, builder.sitofp(builder.load(small[c, d]), exact))
                builder.store(builder.fadd(builder.load(large[c]), total), large[c])
        single = _vector(_F32, LANES)
        out_stride = stride(out, 0, 4)
        for r, b in cells:
            at = builder.add(row, number(r))
            column = builder.mul(builder.add(block, number(b)), number(LANES))
            y = builder.fptrunc(builder.load(large[r, b]), single)
            y = builder.fmul(y, _splat(builder, builder.load(shifted(row_scales.data, at)), LANES))
            if column_scales:
                y = builder.fmul(y, _load(builder, shifted(columns.data, column), single, 4))
            if biases:
                y = builder.fadd(y, _load(builder, shifted(bias.data, column), single, 4))
            target = shifted(out.data, builder.mul(at, out_stride), column)
            builder.store(y, builder.bitcast(target, single.as_pointer())).align = 4
        return context.get_dummy_value()

    @intrinsic
    def tile(typingctx, weights, block, pairs, x, row, row_scales, columns, bias, out):
        integer = types.int64
        return types.void(weights, integer, integer, x, integer, row_scales, columns, bias, out), generate

    return tile


def _product(digits, column_scales, biases):
    """product(weights, blocks, pairs, x, row, rows, row_scales, column_scales, biases, out), compiled.

    As `_kernel`, over the first `blocks` blocks and `rows` rows from `row`. Up to GROUP - 1 rows after the last are
    computed and written, too: x, row_scales and out must have room for them.
    """
    flags = digits, column_scales, biases
    group, single, one = _kernel(TOGETHER, 1, *flags), _kernel(1, SINGLE, *flags), _kernel(1, 1, *flags)

    @compiled
    def product(weights, blocks, pairs, x, row, rows, row_scales, columns, bias, out):
        not_inlined()
        if rows > 2 or rows == TOGETHER:
            for block in range(blocks):
                for r in range(row, row + rows, TOGETHER):
                    group(weights, block, pairs, x, r, row_scales, columns, bias, out)
        else:
            for r in range(row, row + rows):
                block = 0
                while block + SINGLE <= blocks:
                    single(weights, block, pairs, x, r, row_scales, columns, bias, out)
                    block += SINGLE
                while block < blocks:
                    one(weights, block, pairs, x, r, row_scales, columns, bias, out)
                    block += 1

    return product


linear = _product(2, True, True)
score = _product(2, True, False)
weigh_values = _product(3, False, False)
