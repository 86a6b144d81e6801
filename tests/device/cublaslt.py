"""A stand-in for cuBLASLt: it reads what the library is told, and computes with NumPy.

Its matrices are column by column, so it sees the transpose of each of ours.
"""

import ctypes
from itertools import count

import ml_dtypes
import numpy as np

TYPES = {0: np.dtype("f4"), 2: np.dtype("f2"), 14: np.dtype(ml_dtypes.bfloat16)}


class CublasLt:
    """The functions of the library that products call; `attributes` holds what they were told."""

    def __init__(self, proposals=3, status=0):
        self.proposals, self.status = proposals, status
        self.numbers, self.layouts, self.attributes = count(1), {}, {}

    def new(self, result):
        """Give a new object its number."""
        result._obj.value = next(self.numbers)
        self.attributes[result._obj.value] = {}
        return 0

    def cublasLtCreate(self, result):
        return self.new(result)

    def cublasLtMatmulDescCreate(self, result, compute, scale):
        assert (compute, scale) == (68, 0)  # CUBLAS_COMPUTE_32F, CUDA_R_32F
        return self.new(result)

    def cublasLtMatmulPreferenceCreate(self, result):
        return self.new(result)

    def cublasLtMatrixLayoutCreate(self, result, dtype, rows, columns, stride):
        self.new(result)
        shape = rows.value, columns.value, stride.value
        self.layouts[result._obj.value] = TYPES[dtype], *shape
        return 0

    def cublasLtMatmulDescSetAttribute(self, target, attribute, value, size):
        assert size.value == ctypes.sizeof(value._obj)
        self.attributes[target.value][attribute] = value._obj.value
        return 0

    cublasLtMatmulPreferenceSetAttribute = cublasLtMatmulDescSetAttribute

    def cublasLtMatmulPreferenceDestroy(self, search):
        self.search = self.attributes.pop(search.value)
        return 0

    def cublasLtMatmulAlgoGetHeuristic(self, handle, product, a, b, c, d, search, most, out, found):
        assert c is d and self.proposals <= most
        for number in range(self.proposals):
            out._obj[number].waves = 9
            out._obj[number].algorithm[0] = number
        found._obj.value = self.proposals
        return 0

    def cublasLtMatmulAlgoConfigGetAttribute(self, proposal, attribute, number, size, written):
        # CUBLASLT_ALGO_CONFIG_ID, CUBLASLT_ALGO_CONFIG_TILE_ID, CUBLASLT_ALGO_CONFIG_SPLITK_NUM
        number._obj.value = (66, 19 + proposal._obj.algorithm[0], 1)[attribute]
        return 0

    def cublasLtMatmul(self, handle, product, alpha, a, at_a, b, at_b, beta, c, at_c, d, at_d, *_):
        told = self.attributes[product.value]
        left, right = self.matrix(a, at_a), self.matrix(b, at_b)
        left, right = left.T if told.get(3) else left, right.T if told.get(4) else right
        alpha, beta = (ctypes.c_float.from_address(address).value for address in (alpha, beta))
        result = alpha * (left.astype("f4") @ right.astype("f4"))
        if beta:
            result += beta * self.matrix(c, at_c).astype("f4")
        y = self.matrix(d, at_d)
        if told.get(7) == 4:  # CUBLASLT_EPILOGUE_BIAS: a number for each row
            result += numbers_at(told[8], y.dtype, (len(y),), 1).astype("f4")[:, None]
        y[...] = result.astype(y.dtype)
        return self.status

    def matrix(self, address, layout):
        """The matrix of a layout at an address."""
        dtype, rows, columns, stride = self.layouts[layout.value]
        return numbers_at(address, dtype, (columns, rows), stride).T


def numbers_at(address, dtype, shape, stride):
    """The numbers in memory; `stride` is that of the first axis of two."""
    gaps = (stride * dtype.itemsize, dtype.itemsize)[-len(shape) :]
    size = stride * (shape[0] - 1) + shape[-1] if len(shape) == 2 else shape[0]
    memory = (ctypes.c_uint8 * (size * dtype.itemsize)).from_address(address)
    return np.ndarray(shape, dtype, memory, strides=gaps)
