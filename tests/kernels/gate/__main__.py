"""The static gate: `python -m tests.kernels.gate [--update]`.

It compiles every variant of every kernel for every architecture.  An error, a warning or a spilled
register fails, and so do more registers, more shared memory or less occupancy than resources.json
in this folder has.  Who means to make these worse updates the table.
"""

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from pathlib import Path

from rich.progress import track

from minigpt2.device.includes import text_of
from minigpt2.device.kernel_specs import BYTES, KERNELS, number_in, threads_of, variants
from tests.kernels.gate.nvrtc import ARCHITECTURES, Unusable, log_of, missing, resources_in
from tests.kernels.gate.occupancy import blocks_at_once, occupancy

TABLE = Path(__file__).parent / "resources.json"
ADVICE = "if that is meant, update the table: python -m tests.kernels.gate --update"


LARGE = {"N": 4096, "C": 1280, "F": 5120, "H": 20, "V": 50257, "W": 50304}  # GPT-2 Large's sizes


def jobs():
    """Each file with the options of a variant and an architecture, once."""
    wanted = {
        (kernel.file, options, architecture)
        for kernel in KERNELS.values()
        for options in variants(kernel)
        for architecture in ARCHITECTURES
        if architecture >= kernel.min_architecture
    }
    return sorted(wanted)


def compiled(job):
    """What the kernels of a job use, and what is wrong with it."""
    file, options, architecture = job
    try:
        return job, resources_in(log_of(text_of(file), options, architecture)), ""
    except Unusable as error:
        return job, {}, str(error)


def name_of(kernel, options, architecture):
    """The name of a kernel's variant in the table."""
    return f"{kernel} {' '.join(o.removeprefix('-D') for o in options)} sm_{architecture}"


def shared_of(kernel, options, resources):
    """The bytes of shared memory of a block: what its text declares, and what a launch adds."""
    spec, storage = KERNELS[kernel], options[0].removeprefix("-DREAL=")
    sizes = LARGE | {"D": number_in(options, "D")}
    return resources.shared + (spec.shared(sizes, BYTES[storage]) if spec.shared else 0)


def entry_of(kernel, options, architecture, resources):
    """A row of the table: registers, bytes of shared memory, occupancy."""
    numbers = resources.registers, shared_of(kernel, options, resources)
    share = occupancy(architecture, *numbers, threads_of(KERNELS[kernel], options))
    return name_of(kernel, options, architecture), [*numbers, round(share, 4)]


def faults_of(kernel, options, architecture, resources):
    """What no kernel may do: spill registers, use a stack, or not fit at all."""
    what = name_of(kernel, options, architecture)
    if resources.spilled or resources.stack:
        yield f"{what}: {resources.spilled} bytes spilled, {resources.stack} bytes of stack"
    numbers = resources.registers, shared_of(kernel, options, resources)
    if not blocks_at_once(architecture, *numbers, threads_of(KERNELS[kernel], options)):
        yield f"{what}: not even one block fits"


def worse(table, measured):
    """What is worse than in the table, missing in it, or in it without a kernel."""
    for name in sorted(set(table) | set(measured)):
        if name not in table:
            yield f"{name}: not in the table"
        elif name not in measured:
            yield f"{name}: in the table, but there is no such kernel"
        else:
            (registers, shared, share), (now, shared_now, share_now) = table[name], measured[name]
            if now > registers or shared_now > shared or share_now < share:
                yield (
                    f"{name}: {now} registers, {shared_now} bytes, occupancy {share_now:.0%}; "
                    f"the table has {registers}, {shared}, {share:.0%}"
                )


def compiled_from(file, function, options, architecture):
    """The kernels that are a function of a file, compiled with these options for a GPU."""
    for name, kernel in KERNELS.items():
        same = (kernel.file, kernel.function or name) == (file, function)
        if same and architecture >= kernel.min_architecture and options in variants(kernel):
            yield name


def gate(results):
    """The table of some results, and all faults."""
    measured, faults = {}, []
    for (file, options, architecture), kernels, wrong in results:
        if wrong:
            faults.append(f"{file} {' '.join(options)} sm_{architecture}: {wrong}")
        for function, resources in kernels.items():
            for kernel in compiled_from(file, function, options, architecture):
                name, row = entry_of(kernel, options, architecture, resources)
                measured[name] = row
                faults += faults_of(kernel, options, architecture, resources)
    return measured, faults


def print_table(measured):
    """Print the range of each kernel over its variants and architectures."""
    print(f"{'kernel':<22} {'registers':>11} {'shared bytes':>14} {'occupancy':>11}")
    for kernel in KERNELS:
        rows = [row for name, row in measured.items() if name.split()[0] == kernel]
        spans = [sorted({row[i] for row in rows}) for i in range(3)]
        texts = [f"{span[0]} - {span[-1]}" if len(span) > 1 else f"{span[0]}" for span in spans[:2]]
        share = f"{spans[2][0]:.0%} - {spans[2][-1]:.0%}"
        print(f"{kernel:<22} {texts[0]:>11} {texts[1]:>14} {share:>11}")


def written(measured):
    """The text of the table: a line a row."""
    rows = [f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in sorted(measured.items())]
    return "{\n" + ",\n".join(rows) + "\n}\n"


def main():
    """Compile all; returns 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="write the table anew")
    update = parser.parse_args().update
    if why := missing():
        print(f"kernels are not compiled for GPUs: {why} (pip install -e '.[nvrtc]')")
        return 0
    work = jobs()
    with ProcessPoolExecutor(2) as pool:
        results = list(track(pool.map(compiled, work), "compiling kernels", len(work)))
    measured, faults = gate(results)
    if update and not faults:
        TABLE.write_text(written(measured), encoding="utf-8")
    print_table(measured)
    table = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {}
    changes = list(worse(table, measured))
    for line in chain(faults, changes):
        print(line, file=sys.stderr)
    if changes:
        print(ADVICE, file=sys.stderr)
    print(
        f"{len(measured)} kernels, variants and architectures; {len(faults) + len(changes)} faults"
    )
    return int(bool(faults or changes))


if __name__ == "__main__":
    sys.exit(main())
