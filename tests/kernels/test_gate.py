"""The static gate: what it reads, what it counts, and what it does not let pass."""

import ctypes
import importlib.util
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from minigpt2.device.compile import compiler
from minigpt2.device.kernel_specs import KERNELS, variants
from tests.kernels.gate import __main__ as gate
from tests.kernels.gate.nvrtc import (
    ARCHITECTURES,
    Resources,
    Unusable,
    log_of,
    missing,
    resources_in,
)
from tests.kernels.gate.occupancy import GPUS, blocks_at_once, occupancy

LOG = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'second' for 'sm_80'
ptxas info    : Function properties for second
    8 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 128 registers, used 1 barriers, 8 bytes cumulative stack size, 30592 bytes smem
ptxas info    : Compiling entry function 'first' for 'sm_80'
ptxas info    : Function properties for first
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 22 registers, used 0 barriers, 384 bytes cmem[0]
"""
needs_nvrtc = pytest.mark.skipif(bool(missing()), reason=missing() or "it is there")


def test_what_ptxas_says_is_read():
    resources = resources_in(LOG)
    assert resources == {"second": Resources(128, 30592, 28, 8), "first": Resources(22, 0, 0, 0)}


def test_a_warning_is_not_passed_over():
    with pytest.raises(Unusable, match="never referenced"):
        resources_in(
            'kernel.cu(3): warning #177-D: variable "x" was declared but never referenced\n'
        )


@pytest.mark.parametrize(
    ("architecture", "registers", "shared", "threads", "blocks"),
    [
        (80, 32, 0, 256, 8),  # 2,048 threads
        (80, 64, 0, 256, 4),  # 65,536 registers
        (80, 128, 30592, 64, 5),  # 163 KiB of shared memory, 1 KiB of each block kept
        (75, 32, 0, 32, 16),  # places
        (86, 32, 101376, 32, 1),
        (86, 32, 101377, 32, 0),
        (90, 255, 0, 1024, 0),  # 32 warps of 8,192 registers
    ],
)
def test_blocks_at_once_by_hand(architecture, registers, shared, threads, blocks):
    assert blocks_at_once(architecture, registers, shared, threads) == blocks
    share = blocks * threads / GPUS[architecture].threads
    assert occupancy(architecture, registers, shared, threads) == pytest.approx(share)


NVIDIAS = """
#include <cuda_occupancy.h>
extern "C" int blocks(int major, int minor, int threads_sm, int shared_sm, int optin, int reserved,
                      int registers, int shared, int threads) {
    cudaOccDeviceProp gpu;
    gpu.computeMajor = major, gpu.computeMinor = minor;
    gpu.maxThreadsPerBlock = 1024, gpu.maxThreadsPerMultiprocessor = threads_sm;
    gpu.regsPerBlock = 65536, gpu.regsPerMultiprocessor = 65536, gpu.warpSize = 32;
    gpu.sharedMemPerBlock = 49152, gpu.sharedMemPerMultiprocessor = shared_sm, gpu.numSms = 1;
    gpu.sharedMemPerBlockOptin = optin, gpu.reservedSharedMemPerBlock = reserved;
    cudaOccFuncAttributes kernel;
    kernel.maxThreadsPerBlock = 1024, kernel.numRegs = registers;
    kernel.sharedSizeBytes = shared < 49152 ? shared : 49152;
    kernel.maxDynamicSharedSizeBytes = optin - kernel.sharedSizeBytes;
    kernel.numBlockBarriers = 1;
    kernel.partitionedGCConfig = PARTITIONED_GC_OFF;
    kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
    cudaOccDeviceState state;
    cudaOccResult result;
    int bad = cudaOccMaxActiveBlocksPerMultiprocessor(&result, &gpu, &kernel, &state, threads,
                                                     shared - kernel.sharedSizeBytes);
    return bad ? -bad : result.activeBlocksPerMultiprocessor;
}
"""


def nvidias_header():
    """The folder of NVIDIA's own formula, where the wheel is installed."""
    nvidia = importlib.util.find_spec("nvidia")
    places = nvidia.submodule_search_locations if nvidia else []
    folders = (path.parent for place in places for path in Path(place).rglob("cuda_occupancy.h"))
    return next(folders, None)


def test_occupancy_is_nvidias(tmp_path):
    header, cxx = nvidias_header(), compiler()
    if not header or not cxx:
        pytest.skip("NVIDIA's cuda_occupancy.h or a C++ compiler is missing")
    (tmp_path / "formula.cpp").write_text(NVIDIAS)
    command = [cxx, "-w", "-shared", "-fPIC", f"-I{header}", "formula.cpp", "-o", "formula.so"]
    subprocess.run(command, cwd=tmp_path, check=True)
    blocks = ctypes.CDLL(str(tmp_path / "formula.so")).blocks
    rng = np.random.default_rng(0)
    for _ in range(5000):
        architecture = int(rng.choice(list(GPUS)))
        gpu = GPUS[architecture]
        registers = int(rng.integers(16, 256))
        shared = int(
            rng.choice([0, rng.integers(0, 49152), rng.integers(0, gpu.shared_of_a_block)])
        )
        threads = 32 * int(rng.integers(1, 33))
        limits = gpu.threads, gpu.shared, gpu.shared_of_a_block, gpu.reserved
        theirs = blocks(*divmod(architecture, 10), *limits, registers, shared, threads)
        ours = blocks_at_once(architecture, registers, shared, threads)
        assert ours == theirs, (architecture, registers, shared, threads)


GOOD = {"a": [32, 100, 0.5], "b": [16, 0, 1.0]}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"a": [30, 90, 0.75]}, []),
        ({"a": [33, 100, 0.5]}, ["a: 33 registers, 100 bytes, occupancy 50%; the table has 32"]),
        ({"a": [32, 101, 0.5]}, ["a: 32 registers, 101 bytes"]),
        ({"b": [16, 0, 0.9]}, ["occupancy 90%"]),
        ({"c": [1, 1, 1.0]}, ["c: not in the table"]),
        ({"b": None}, ["b: in the table, but there is no such kernel"]),
    ],
)
def test_what_is_worse_than_the_table_is_a_fault(change, expected):
    measured = {name: row for name, row in (GOOD | change).items() if row}
    faults = list(gate.worse(GOOD, measured))
    assert len(faults) == len(expected)
    assert all(words in fault for words, fault in zip(expected, faults, strict=True))


def test_a_kernel_that_spills_or_does_not_fit_is_a_fault():
    options = ("-DREAL=float",)
    job = ("grad_norm.cu", options, 80)
    _, spills = gate.gate([(job, {"squares": Resources(32, 0, 8, 0)}, "")])
    assert spills == ["squares REAL=float sm_80: 8 bytes spilled, 0 bytes of stack"]
    _, large = gate.gate([(job, {"squares": Resources(32, 200000, 0, 0)}, "")])
    assert large == ["squares REAL=float sm_80: not even one block fits"]
    assert gate.gate([(job, {}, "grad_norm.cu(3): error")])[1][0].endswith("grad_norm.cu(3): error")


def test_the_shared_memory_that_a_launch_adds_counts(monkeypatch):
    job = ("grad_norm.cu", ("-DREAL=float",), 80)

    def measured(shared):
        monkeypatch.setitem(KERNELS, "squares", KERNELS["squares"]._replace(shared=shared))
        return gate.gate([(job, {"squares": Resources(32, 1024, 0, 0)}, "")])

    table, faults = measured(lambda n, size: n["C"] * size)
    assert table == {"squares REAL=float sm_80": [32, 1024 + 4 * 1280, 1.0]} and not faults
    table, faults = measured(lambda n, size: n["W"] * size)
    assert [row[2] for row in table.values()] == [0] and "not even one block" in faults[0]


def test_the_table_has_every_kernel_variant_and_architecture():
    table = json.loads(gate.TABLE.read_text(encoding="utf-8"))
    expected = {
        gate.name_of(name, options, architecture)
        for name, kernel in KERNELS.items()
        for options in variants(kernel)
        for architecture in ARCHITECTURES
        if architecture >= kernel.min_architecture
    }
    assert set(table) == expected


@needs_nvrtc
def test_a_little_kernel_passes_and_a_spoilt_one_does_not():
    good = 'extern "C" __global__ void f(float* x) { x[threadIdx.x] *= 2.f; }'
    assert resources_in(log_of(good, (), 80))["f"].spilled == 0
    with pytest.raises(Unusable, match="never referenced"):
        resources_in(log_of(good.replace("{ ", "{ int unused; "), (), 80))
    with pytest.raises(Unusable, match="undefined"):
        log_of(good.replace("*= 2.f", "= INFINITY"), (), 80)
