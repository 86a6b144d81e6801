"""The card: its name, and the rates that floors are counted with."""

from time import perf_counter
from typing import NamedTuple

import numpy as np

from minigpt2.device.devices import describe_device
from minigpt2.training.precision import compute_dtype
from tests.benchmarks.gpu.floors import Rates
from tests.kernels.gpus import GPUS

# H200: the H100's processor with other memory (NVIDIA's data sheet of the SXM board).
CARDS = {**GPUS, "H200": GPUS["H100"]._replace(memory=4.8e12)}
SIZES = {"float32": 4096, "float16": 8192, "bfloat16": 8192}  # of the product that is measured
COPIED = 2**31  # bytes: many times the L2 cache


class Card(NamedTuple):
    """A card, its measured rates, and those of its data sheet if that is known."""

    name: str
    measured: Rates
    promised: Rates | None

    @property
    def rates(self):
        """What floors are counted with.

        The product's rate is the measured one, since no card holds its data sheet's; memory's is
        that of the data sheet, since a copy does not reach what reading alone does.
        """
        return self.measured._replace(memory=(self.promised or self.measured).memory)

    def described(self, precision):
        """One line."""
        sheet = self.promised
        text = [f"{self.name}: {precision} products at {self.measured.operations / 1e12:,.3g}"]
        text.append(f"({sheet.operations / 1e12:,.3g} by the data sheet) " if sheet else "")
        text.append(f"TFLOP/s, a copy at {self.measured.memory / 1e12:.3g}")
        text.append(f"({sheet.memory / 1e12:.3g}) " if sheet else "")
        return " ".join(part.strip() for part in text if part) + " TB/s"


def card_of(library, precision):
    """The card of an array library, measured."""
    name = describe_device(library).split(":")[0]
    gpu = next((gpu for short, gpu in CARDS.items() if short in name.split()), None)
    gpu = gpu or next((gpu for short, gpu in CARDS.items() if short in name), None)
    promised = gpu and Rates(gpu.float32 if precision == "float32" else gpu.tensor, gpu.memory)
    return Card(name, measured_rates(library, precision), promised)


def measured_rates(library, precision):
    """What a large product and a large copy reach; those of small ones where there is no GPU."""
    on_gpu = not hasattr(library, "machine")
    size, copied = (SIZES[precision], COPIED) if on_gpu else (64, 2**20)
    rates = Rates(product_rate(library, precision, size), copy_rate(library, copied))
    if on_gpu:
        library.get_default_memory_pool().free_all_blocks()
    return rates


def product_rate(library, precision, size):
    """Operations a second of a square product of random numbers."""
    block = np.random.default_rng(0).standard_normal((64, 64), np.float32)
    x = library.asarray(np.tile(block, (size // 64, size // 64)), compute_dtype(precision))
    y = library.empty_like(x)
    return 2 * size**3 / seconds_of(library, lambda: library.matmul(x, x, out=y))


def copy_rate(library, size):
    """Bytes read and written a second by a copy."""
    source = library.zeros(size // 4, np.float32)
    target = library.empty_like(source)

    def copy():
        target[...] = source

    return 2 * size / seconds_of(library, copy)


def seconds_of(library, call, times=10):
    """The mean of some calls after three that warm up, by the GPU's own clock if there is one."""
    for _ in range(3):
        call()
    if hasattr(library, "machine"):  # emulated
        started = perf_counter()
        call()
        return perf_counter() - started
    begin, end = library.cuda.Event(), library.cuda.Event()
    begin.record()
    for _ in range(times):
        call()
    end.record()
    end.synchronize()
    return library.cuda.get_elapsed_time(begin, end) / 1e3 / times
