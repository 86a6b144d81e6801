"""The package follows the rules of the book."""

import subprocess
import sys

import pytest

from book.parse import read_sources
from minigpt2.cli import COMMANDS
from tests.book.rules import (
    at,
    command_faults,
    equation_faults,
    import_faults,
    library_faults,
    room_faults,
    table_faults,
)
from tests.book.shapes import letter_faults, modules_of, read_shapes, trace_case
from tests.gradcheck import CHAPTERS, cases_of, sizes_of

SOURCES = read_sources()
CASES = [(case, sizes_of(module)) for module in CHAPTERS for case in cases_of(module)]
HEAVY = {"rich", "matplotlib", "huggingface_hub", "yaml"}


def assert_none(faults):
    """Fail with all faults, one a line, if there are any."""
    assert not faults, "\n" + "\n".join(faults)


def test_the_table_of_contents_lists_every_module_once():
    assert_none(table_faults(SOURCES))


def test_a_module_imports_only_what_has_been_read():
    assert_none(import_faults(SOURCES))


def test_between_two_rooms_arrows_go_one_way():
    assert_none(room_faults(SOURCES))


def test_equations_are_defined_in_order_and_used():
    assert_none(equation_faults(SOURCES))


def test_letters_of_shapes_are_in_a_list_of_symbols():
    assert_none(letter_faults(SOURCES))


def test_libraries_stay_in_their_place():
    assert_none(library_faults(SOURCES))


def test_a_command_has_a_module_of_its_name():
    assert_none(command_faults(COMMANDS, SOURCES))


def test_importing_the_package_loads_no_heavy_library():
    program = "import sys, minigpt2; print(*sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert HEAVY & set(output.stdout.split()) == set()


@pytest.fixture(scope="module")
def tracers():
    """(module, tracer) for every case and every module that it runs."""
    return [
        (module, trace_case(case, sizes, module, SOURCES[module]))
        for case, sizes in CASES
        for module in modules_of(case, SOURCES)
    ]


def test_shapes_in_comments_are_those_of_the_arrays(tracers):
    assert_none([fault for _, tracer in tracers for fault in tracer.faults])


def test_every_shape_in_a_comment_of_an_op_is_compared_with_an_array(tracers):
    compared = {(module, line) for module, tracer in tracers for line in tracer.checked}
    missed = []
    for module in (module for module in SOURCES if module.startswith("ops/")):
        statements, fields, strays = read_shapes(SOURCES[module])
        lines = {statement.first for statement in statements}.union(strays)
        lines |= {line for shapes in fields.values() for line, _ in shapes.values()}
        unread = [line for line in sorted(lines) if (module, line) not in compared]
        missed += [at(module, line, "a shape that no test reads") for line in unread]
    assert_none(missed)
    assert len(compared) >= 60
