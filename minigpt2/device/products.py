"""Products: matrix products on a device, with what stands around them in the same launch.

    matmul(x, w)                          x w
    matmul(x, w, bias=b)                  x w + b
    matmul(x, w, residual=r)              r + x w
    matmul(x, a, scale=s)                 s x a
    matmul(x, dy, transpose_x=True, out=dw, accumulate=True)     dw += xᵀ dy

Numbers of 16 bits are multiplied exactly and summed in float32; the sum is rounded once, or not at
all where `out` holds float32.  On a GPU cuBLASLt computes them (device/cublaslt), on the emulated
device NumPy.
"""

from functools import cache
from types import ModuleType

from minigpt2.backend import Array, array_module
from minigpt2.device.cublaslt import BEST_ALIGNMENT, WORKSPACE_BYTES, Matrix, Product


def matmul(
    x: Array,
    w: Array,
    *,
    transpose_x: bool = False,
    transpose_w: bool = False,
    out: Array | None = None,
    bias: Array | None = None,
    residual: Array | None = None,
    accumulate: bool = False,
    scale: float = 1.0,
) -> Array:
    """Return `scale` x w, of two matrices, each transposed or not, with what is added to it.

    bias (K,) is added to every row and residual (N, K) to the product.  The result is a fresh array
    of x's type, or `out` (N, K), to which the product is added with `accumulate`.  Numbers of a row
    must be neighbours in memory; rows may be longer than the matrix.
    """
    xp = array_module(x)
    n, k = x.shape[int(transpose_x)], w.shape[1 - int(transpose_w)]
    y = xp.empty((n, k), x.dtype) if out is None else out
    if x.shape[1 - int(transpose_x)] != w.shape[int(transpose_w)] or y.shape != (n, k):
        raise ValueError(f"a product of {x.shape} and {w.shape} does not fit {y.shape}")
    start = y if accumulate else residual
    if hasattr(xp, "product_into"):  # the emulated device
        xp.product_into(y, x, w, transpose_x, transpose_w, bias, start, scale=scale)
        return y
    if not n or not k:
        return y
    shapes = matrix_of(x), matrix_of(w), matrix_of(y)
    plan = planned(*shapes, transpose_x, transpose_w, bias is not None)
    base, stream = y if start is None else start, xp.cuda.get_current_stream().ptr
    plan.launch(
        x.data.ptr,
        w.data.ptr,
        base.data.ptr,
        y.data.ptr,
        alpha=scale,
        beta=int(start is not None),
        bias=0 if bias is None else bias.data.ptr,
        workspace=workspace(xp, stream).data.ptr,
        stream=stream,
    )
    return y


@cache
def planned(
    x: Matrix, w: Matrix, y: Matrix, transpose_x: bool, transpose_w: bool, bias: bool
) -> Product:
    """Return the plan of a product; each is made once."""
    return Product(x, w, y, transpose_x=transpose_x, transpose_w=transpose_w, bias=bias)


@cache
def workspace(library: ModuleType, stream: int) -> Array:
    """Return the memory that all products of a stream share: they run one after the other."""
    return library.empty(WORKSPACE_BYTES, library.uint8)


def matrix_of(array: Array) -> Matrix:
    """Return how a matrix lies in memory.  Raises ValueError if a row's numbers have gaps."""
    rows, columns = array.shape
    size = array.itemsize
    if array.strides[1] != size and columns > 1:
        raise ValueError("a row's numbers must be neighbours in memory")
    address = array.data.ptr | BEST_ALIGNMENT
    return Matrix(rows, columns, array.strides[0] // size, array.dtype.name, address & -address)
