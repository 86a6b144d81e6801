"""GPUs that kernels are judged by: what their data sheets promise."""

from typing import NamedTuple


class Gpu(NamedTuple):
    """What a data sheet promises, a second."""

    architecture: int
    clocks: float  # of all multiprocessors together
    memory: float  # bytes
    cache: float  # bytes from L2
    float32: float  # operations
    tensor: float  # operations on numbers of 16 bits, dense


# NVIDIA's data sheets of the 80 GB SXM boards.  L2: 5,120 bytes a clock (A100 whitepaper); for H100
# NVIDIA gives no number, so the same a clock.
GPUS = {
    "A100": Gpu(80, 108 * 1.41e9, 2.039e12, 5120 * 1.41e9, 19.5e12, 312e12),
    "H100": Gpu(90, 132 * 1.83e9, 3.35e12, 5120 * 1.83e9, 66.9e12, 989e12),
}
