"""cuBLASLt: NVIDIA's matrix products, called so that they can be captured into a graph.

CuPy's own products cannot be captured, round a product of 16-bit numbers before it can be added to
a gradient in float32, and add no bias.  cuBLASLt does all of it in one launch:
    D = A B + β C + bias, each of A and B transposed or not
Its matrices are column by column, ours row by row: in the same memory each is the other's
transpose, so y = x w is yᵀ = wᵀ xᵀ, with A = w and B = x.

The library comes with CuPy.  nvmath-python binds the same functions, and needs seven more of
NVIDIA's libraries to be imported.  (NVIDIA, cuBLAS documentation, section 3.)
"""

import ctypes
from functools import cache
from typing import Any, NamedTuple

# cudaDataType_t, cublasComputeType_t and the attributes' numbers of cublasLt.h
TYPES = {"float32": 0, "float16": 2, "bfloat16": 14}
COMPUTE_FLOAT32 = 68  # sums in float32, and of float32 numbers no rounding to TF32
TRANSPOSE_A, TRANSPOSE_B, EPILOGUE, BIAS_POINTER = 3, 4, 7, 8  # of a product
EPILOGUE_BIAS = 4
MAX_WORKSPACE, ALIGNMENT_A, ALIGNMENT_B, ALIGNMENT_C, ALIGNMENT_D = 1, 5, 6, 7, 8  # of a search
WORKSPACE_BYTES = 32 << 20  # what NVIDIA recommends for Hopper
BEST_ALIGNMENT = 256
PROPOSALS = 12  # algorithms asked for
KERNEL, TILE, SPLITS = 0, 1, 2  # an algorithm's attributes
HOPPERS, OLDER, NEWER = 66, 20, 55  # kernels: of Hopper's tensor cores, and two for float32
# Tiles of 128 x 128 and 128 x 160 numbers, and how many times they must fill the GPU at least.
SMALL_TILES = ((20, 8), (29, 1.5))


class Heuristic(ctypes.Structure):
    """`cublasLtMatmulHeuristicResult_t`: an algorithm, and the memory that it needs."""

    _fields_ = [
        ("algorithm", ctypes.c_uint64 * 8),
        ("workspace", ctypes.c_size_t),
        ("status", ctypes.c_int),
        ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    ]


class Matrix(NamedTuple):
    """A matrix as it lies in memory: its rows and columns, the numbers from row to row, its type.

    `alignment` is the largest power of 2, up to 256, that divides its address.
    """

    rows: int
    columns: int
    stride: int
    dtype: str
    alignment: int


class ProductError(RuntimeError):
    """cuBLASLt refuses a product."""


@cache
def cublaslt() -> ctypes.CDLL:
    """Return the library."""
    from cuda.pathfinder import load_nvidia_dynamic_lib

    library = ctypes.CDLL(load_nvidia_dynamic_lib("cublasLt").abs_path)
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    library.cublasLtMatmul.argtypes = [pointer] * 14 + [size, pointer]
    return library


def call(function: str, *arguments: Any) -> None:
    """Call one of the library's functions.  Raises ProductError if it reports a failure."""
    status = getattr(cublaslt(), function)(*arguments)
    if status:
        raise ProductError(f"{function} failed with cublasStatus {status}")


@cache
def handle() -> ctypes.c_void_p:
    """Return the handle that all products use."""
    result = ctypes.c_void_p()
    call("cublasLtCreate", ctypes.byref(result))
    return result


def created(function: str, *arguments: Any) -> ctypes.c_void_p:
    """Return the object that one of the library's functions creates; it lives as long as we do."""
    result = ctypes.c_void_p()
    call(function, ctypes.byref(result), *arguments)
    return result


def set_attribute(function: str, target: ctypes.c_void_p, attribute: int, value: Any) -> None:
    """Set an attribute of an object to a ctypes number."""
    call(function, target, attribute, ctypes.byref(value), ctypes.c_size_t(ctypes.sizeof(value)))


def layout_of(matrix: Matrix) -> ctypes.c_void_p:
    """Return a matrix's description for the library, which sees its transpose."""
    columns, rows = ctypes.c_uint64(matrix.columns), ctypes.c_uint64(matrix.rows)
    stride = ctypes.c_int64(matrix.stride)
    return created("cublasLtMatrixLayoutCreate", TYPES[matrix.dtype], columns, rows, stride)


def number_of(proposal: Heuristic, attribute: int) -> int:
    """Return one of the numbers that describe an algorithm."""
    number, written = ctypes.c_uint32(), ctypes.c_size_t()
    algorithm, size = ctypes.byref(proposal), ctypes.c_size_t(ctypes.sizeof(number))
    results = ctypes.byref(number), size, ctypes.byref(written)
    call("cublasLtMatmulAlgoConfigGetAttribute", algorithm, attribute, *results)
    return number.value


def chosen(proposals: list[Heuristic], *, short: bool, upright: bool) -> Heuristic:
    """Return the first of the proposals, which the library expects to be the fastest, but for two.

    On an H200 others are faster, in µs (a product of N x C and C x K numbers: N x K, C):

    numbers of 16 bits (`short`), with tiles that fill the GPU many times: small tiles, same bits
        8,192 x 3,072, 768      53.4, not 57.7      50,304 x 768, 1,024     137.9, not 176.7
        8,192 x 2,304, 768      44.9, not 47.4      50,304 x 1,280, 1,024   228.4, not 311.0
        4,096 x 5,120, 1,280    71.8, not 77.1      1,280 x 5,120, 4,096     81.2, not 85.5
    float32, x and w as they are (`upright`), summed in splits: the newer of two kernels
        1,024 x 768, 50,304     1,480, not 1,598    8,192 x 768, 3,072      818, not 894
    """
    kernel = number_of(proposals[0], KERNEL)
    if short and kernel == HOPPERS:
        for tile, waves in SMALL_TILES:
            for proposal in proposals:
                if proposal.waves > waves and number_of(proposal, TILE) == tile:
                    return proposal
    if upright and not short and kernel == OLDER and number_of(proposals[0], SPLITS) > 1:
        for proposal in proposals:
            if number_of(proposal, KERNEL) == NEWER:
                return proposal
    return proposals[0]


@cache
def factor(value: float) -> ctypes.c_float:
    """Return a number as the library reads it, where it stays."""
    return ctypes.c_float(value)


def address_of(value: float) -> int:
    """Return the address of a number that a product is multiplied by."""
    return ctypes.addressof(factor(value))


class Product:
    """A product of matrices of these shapes, planned once: y = β y₀ + x w + bias.

    y₀ is an array of y's shape: y itself, or a residual.
    """

    def __init__(
        self, x: Matrix, w: Matrix, y: Matrix, *, transpose_x: bool, transpose_w: bool, bias: bool
    ):
        self.description = created("cublasLtMatmulDescCreate", COMPUTE_FLOAT32, TYPES["float32"])
        number = ctypes.c_int32
        self.set(TRANSPOSE_A, number(transpose_w))
        self.set(TRANSPOSE_B, number(transpose_x))
        if bias:
            self.set(EPILOGUE, number(EPILOGUE_BIAS))
        self.biased = bias
        self.x, self.w, self.y = layout_of(x), layout_of(w), layout_of(y)
        upright = not (transpose_x or transpose_w)
        self.heuristic = self.best_algorithm(x, w, y, upright)

    def set(self, attribute: int, value: Any) -> None:
        """Set one of the product's attributes."""
        set_attribute("cublasLtMatmulDescSetAttribute", self.description, attribute, value)

    def best_algorithm(self, x: Matrix, w: Matrix, y: Matrix, upright: bool) -> Heuristic:
        """Return the algorithm for these matrices: see `chosen`."""
        search = created("cublasLtMatmulPreferenceCreate")
        limits = {
            MAX_WORKSPACE: ctypes.c_uint64(WORKSPACE_BYTES),
            ALIGNMENT_A: ctypes.c_uint32(w.alignment),
            ALIGNMENT_B: ctypes.c_uint32(x.alignment),
            ALIGNMENT_C: ctypes.c_uint32(y.alignment),
            ALIGNMENT_D: ctypes.c_uint32(y.alignment),
        }
        for attribute, value in limits.items():
            set_attribute("cublasLtMatmulPreferenceSetAttribute", search, attribute, value)
        proposals, count = (Heuristic * PROPOSALS)(), ctypes.c_int()
        matrices = self.w, self.x, self.y, self.y
        results = PROPOSALS, ctypes.byref(proposals), ctypes.byref(count)
        call(
            "cublasLtMatmulAlgoGetHeuristic",
            handle(),
            self.description,
            *matrices,
            search,
            *results,
        )
        call("cublasLtMatmulPreferenceDestroy", search)
        if not count.value:
            raise ProductError(f"cuBLASLt has no algorithm for {x} times {w} to {y}")
        short = x.dtype != "float32"
        return chosen(proposals[: count.value], short=short, upright=upright)

    def launch(
        self,
        x: int,
        w: int,
        start: int,
        y: int,
        *,
        alpha: float,
        beta: int,
        bias: int,
        workspace: int,
        stream: int,
    ) -> None:
        """Launch the product on a stream; the numbers are addresses, `start` that of y₀.

        Raises ProductError if the library refuses it.
        """
        if self.biased:
            self.set(BIAS_POINTER, ctypes.c_void_p(bias))
        matrices = w, self.w, x, self.x, address_of(beta), start, self.y, y, self.y
        algorithm = ctypes.addressof(self.heuristic)
        call(
            "cublasLtMatmul",
            handle(),
            self.description,
            address_of(alpha),
            *matrices,
            algorithm,
            workspace,
            WORKSPACE_BYTES,
            stream,
        )
