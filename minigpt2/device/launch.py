"""Launch: a kernel gets its arguments, or an error that says what is wrong with them.

Why
    CuPy passes a kernel whatever it gets: an array of another precision, a view with gaps between
    its rows, a Python float as eight bytes where the kernel reads four.  The kernel then reads
    memory that it should not, without an error.  So `launch` checks every argument against the
    kernel's signature before anything runs.

    A step makes hundreds of launches, and the checks of one take longer than CuPy's own part of it.
    But they depend only on the arrays' shapes, dtypes, contiguity and devices, which repeat.  So
    the first launch of each kind leaves a plan: the compiled kernel, its grid, the sizes that it
    reads.  Later ones look the plan up, put their arrays and numbers in, and go.

    A kernel is compiled at its first launch, for the storage type and head size of its arguments,
    and the result is cached.
"""

from collections.abc import Callable, Hashable
from functools import cache, lru_cache, partial
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from minigpt2.backend import Array
from minigpt2.device.checks import (
    NUMBERS,
    Traits,
    check_array,
    name_of,
    number_of,
    refuse_others,
    storage_of,
    traits_of,
)
from minigpt2.device.includes import text_of
from minigpt2.device.kernel_specs import (
    ACCESS,
    BYTES,
    HEAD_SIZES,
    KERNELS,
    STORAGE,
    KernelSpec,
    Sizes,
    options_of,
    threads_of,
)
from minigpt2.device.signatures import Parameter, parameters_in
from minigpt2.wording import plural

MAX_PLANS = 4096  # rows may differ from batch to batch, so there is no end of kinds of launches
PLANS: dict[Hashable, "Plan"] = {}
NamedNumber = tuple[int, str, Callable[[Any], np.generic]]  # its place, its name, its type


class Plan(NamedTuple):
    """A launch that was checked: all of it but the arrays and the numbers that its caller names."""

    kernel: Any  # None for an empty grid, of which CuPy would make one block
    grid: tuple[int, ...]
    block: tuple[int]
    shared: int  # bytes of dynamic shared memory
    numbers: tuple[np.generic | None, ...]  # behind the arrays; None for one that the caller names
    named: tuple[NamedNumber, ...]


@cache
def parameters_of(name: str) -> tuple[Parameter, ...]:
    """Return the parameters of a kernel; its file is read at the first call."""
    kernel = KERNELS[name]
    return parameters_in(text_of(kernel.file), kernel.function or name)


def launch(library: ModuleType, name: str, *arrays: Array | None, **numbers: float) -> None:
    """Run a kernel on arrays of a library, in the order of its parameters.

    Sizes come from the shapes of the arrays; the caller names all other numbers, and D where no
    array has it in its shape.  Raises TypeError or ValueError, before anything runs, for an
    argument that does not fit the kernel's signature.
    """
    try:
        traits = [None if array is None else traits_of(array) for array in arrays]
    except AttributeError:
        refuse_others(library, name, parameters_of(name), arrays)
        raise
    key = (library, name, place_of(library)(), numbers.get("D"), *numbers, *traits)
    plan = PLANS.get(key)
    if plan is None:
        refuse_others(library, name, parameters_of(name), arrays)
        if len(PLANS) >= MAX_PLANS:
            PLANS.clear()
        plan = PLANS[key] = plan_of(library, name, traits, numbers)
    arguments = [*arrays, *plan.numbers]
    for place, number, convert in plan.named:
        arguments[place] = convert(numbers[number])
    if plan.kernel is not None:
        plan.kernel(plan.grid, plan.block, tuple(arguments), shared_mem=plan.shared)


@cache
def place_of(library: ModuleType) -> Callable[[], Hashable]:
    """Return a function that says where the next launch runs: on which device, on which machine."""
    current = library.cuda.runtime.getDevice
    return (lambda: (current(), library.machine())) if emulated(library) else current


def emulated(library: ModuleType) -> bool:
    """Return whether a library is the fake CuPy, whose kernels a machine runs."""
    return hasattr(library, "machine")


def plan_of(
    library: ModuleType, name: str, traits: list[Any], numbers_by_name: dict[str, float]
) -> Plan:
    """Check a launch, and return its plan.  Raises TypeError or ValueError as `launch` does."""
    spec, parameters = KERNELS[name], parameters_of(name)
    array_parameters = [p for p in parameters if p.shape is not None]
    if len(traits) != len(array_parameters):
        raise TypeError(f"{name} takes {len(array_parameters)} arrays, not {len(traits)}")
    pairs = [
        (p, None if of is None else Traits(*of))
        for p, of in zip(array_parameters, traits, strict=True)
    ]
    names = set(numbers_by_name)
    sizes: Sizes = {}
    if spec.per_head_size and "D" in names:
        sizes["D"] = int(numbers_by_name["D"])
        names.remove("D")
    storage, device = storage_of(name, pairs), library.cuda.runtime.getDevice()
    for p, array in pairs:
        check_array(name, p, array, storage, device, sizes)
    if why := misfit(spec, STORAGE[storage], sizes):
        raise ValueError(f"{name}: {why}")
    remaining = parameters[len(pairs) :]
    if unknown := names - {p.name for p in remaining}:
        raise TypeError(f"{name} has no number called {', '.join(sorted(unknown))}")
    numbers: list[np.generic | None] = []
    named: list[NamedNumber] = []
    for place, p in enumerate(remaining, len(pairs)):
        convert = partial(number_of, name, p) if p.type == "int" else NUMBERS[p.type]
        if p.name in names:
            named.append((place, p.name, convert))
        elif p.name not in sizes:
            raise TypeError(f"{name} needs the number {p.name}")
        numbers.append(None if p.name in names else convert(sizes[p.name]))
    options = options_of(spec, STORAGE[storage], sizes)
    width = ACCESS // BYTES[STORAGE[storage]]  # numbers in an access
    shared = spec.shared(sizes, BYTES[STORAGE[storage]]) if spec.shared else 0
    kernel, grid, block = None, spec.grid(sizes | {"WIDTH": width}), (threads_of(spec, options),)
    if all(grid):
        kernel = compiled(library, machine_of(library), name, options)
        if shared > kernel.max_dynamic_shared_size_bytes:
            kernel.max_dynamic_shared_size_bytes = shared
        if shared:  # in per cent: else the driver may leave room for fewer blocks
            kernel.preferred_shared_memory_carveout = 100
    return Plan(kernel, grid, block, shared, tuple(numbers), tuple(named))


@lru_cache(MAX_PLANS)
def fits(name: str, dtype: Any = np.float32, **sizes: int) -> bool:
    """Return whether a kernel can run with these sizes on arrays of a dtype."""
    return not misfit(KERNELS[name], STORAGE.get(name_of(np.dtype(dtype)), "float"), sizes)


def misfit(kernel: KernelSpec, storage: str, sizes: Sizes) -> str:
    """Return which of the sizes a kernel cannot run with, and why; empty if it can."""
    whole = [(letter, ACCESS // BYTES[storage]) for letter in kernel.whole]
    for letter, step in (*kernel.multiples, *whole):
        if sizes[letter] % step:
            return f"{letter} = {sizes[letter]} must be a multiple of {step}"
    for letter, limit in kernel.limits:
        if sizes[letter] > limit:
            return f"{letter} = {sizes[letter]} is more than {limit}"
    if kernel.per_head_size and sizes["D"] not in HEAD_SIZES:
        return f"heads of {plural(sizes['D'], 'feature')}; {HEAD_SIZES} are built"
    return ""


def machine_of(library: ModuleType) -> Any:
    """Return the emulated machine that runs a library's kernels; None for a real GPU."""
    return library.machine() if emulated(library) else None


@cache
def compiled(library: ModuleType, machine: Any, name: str, options: tuple[str, ...]) -> Any:
    """Return a kernel, compiled with some options."""
    kernel = KERNELS[name]
    file = compiled_file(library, machine, kernel.file, options)
    return file.get_function(kernel.function or name)


@cache
def compiled_file(library: ModuleType, machine: Any, file: str, options: tuple[str, ...]) -> Any:
    """Return all kernels of a file, compiled."""
    return library.RawModule(code=text_of(file), options=options)
