"""Occupancy: how many blocks of a kernel a multiprocessor holds at once.

Each of its stores is divided among blocks: threads, places for blocks, registers, shared memory.
Registers are handed to a warp in lots of 256, from four banks of 16,384; shared memory to a block
in lots, with some of it kept by the system.  (CUDA C++ Programming Guide, "Technical
Specifications per Compute Capability".)
"""

from typing import NamedTuple


class Multiprocessor(NamedTuple):
    """What a multiprocessor has; bytes of shared memory."""

    threads: int
    blocks: int
    shared: int
    shared_of_a_block: int
    reserved: int
    lot: int


GPUS = {
    75: Multiprocessor(1024, 16, 65536, 65536, 0, 256),
    80: Multiprocessor(2048, 32, 167936, 166912, 1024, 128),
    86: Multiprocessor(1536, 16, 102400, 101376, 1024, 128),
    89: Multiprocessor(1536, 24, 102400, 101376, 1024, 128),
    90: Multiprocessor(2048, 32, 233472, 232448, 1024, 128),
    100: Multiprocessor(2048, 32, 233472, 232448, 1024, 128),
    120: Multiprocessor(1536, 24, 102400, 101376, 1024, 128),
}
BANK, BANKS, LOT = 16384, 4, 256  # registers


def blocks_at_once(architecture, registers, shared, threads):
    """How many blocks a multiprocessor holds."""
    gpu = GPUS[architecture]
    if shared > gpu.shared_of_a_block or threads > 1024 or registers > 255:
        return 0
    warps = -(-threads // 32)
    of_a_warp = -(-registers * 32 // LOT) * LOT
    by_registers = BANK // of_a_warp * BANKS // warps if registers else gpu.blocks
    of_a_block = -(-(shared + gpu.reserved) // gpu.lot) * gpu.lot
    by_shared = gpu.shared // of_a_block if of_a_block else gpu.blocks
    return min(gpu.blocks, gpu.threads // (32 * warps), by_registers, by_shared)


def occupancy(architecture, registers, shared, threads):
    """The share of a multiprocessor's threads that can be under way at once."""
    warps = -(-threads // 32)
    blocks = blocks_at_once(architecture, registers, shared, threads)
    return blocks * warps * 32 / GPUS[architecture].threads
