"""Signatures: the parameters of a kernel, with the shapes of its arrays, read from its source.

A kernel declares one parameter a line, its arrays before its numbers.  An array has its shape
behind it as a comment, and says whether the caller may leave it out (the kernel then gets a null
pointer):

    gelu_forward(
        const real* __restrict__ h,  // (N, F)
        const real* __restrict__ b,  // (F,), optional
        real* __restrict__ y,        // (N, F)
        int F
    ) {

`real` is the storage type that a kernel is compiled for (-DREAL).  `const` means that the kernel
only reads the array.  Letters stand for sizes, and one letter is one size in all shapes of a
kernel.  `launch` takes sizes from the shapes of the arrays that it gets, so no caller passes F.
"""

import re
from typing import NamedTuple

NUMBER_TYPES = ("int", "long long", "float")
ARRAY_TYPES = ("real", "float", "int")
DECLARATION = re.compile(
    r"(?P<const>const )?(?P<type>\w+(?: \w+)*?)(?P<pointer>\*(?: __restrict__)?)? (?P<name>\w+),?"
    r"(?:\s*// (?P<comment>.*))?"
)
SHAPE = re.compile(r"\((?P<axes>(?:\w+, )+\w+|\w+,)\)(?P<optional>, optional)?")
EXAMPLE = "const real* __restrict__ x,  // (N, C), optional"


class Parameter(NamedTuple):
    """One parameter of a kernel."""

    name: str
    type: str  # of the number, or of the array's elements
    shape: tuple[str, ...] | None  # ("N", "C"); None for a number
    const: bool = False  # whether the kernel only reads the array
    optional: bool = False  # whether the caller may leave the array out


def parameters_in(text: str, kernel: str) -> tuple[Parameter, ...]:
    """Return the parameters of a kernel from the text of its file, in their order.

    Raises ValueError with file and line, where the text has #line directives, for a kernel that
    the text lacks and for a declaration that cannot be read.
    """
    start = re.search(rf"^{kernel}\(", text, flags=re.M)
    if not start:
        raise ValueError(f"the text has no kernel {kernel} at the beginning of a line")
    first, *lines = text[start.end() :].splitlines()
    if first:
        raise ValueError(f"{place_of(text, start.start())}: a parameter on the line of {kernel}")
    place = start.end() + 1
    parameters: list[Parameter] = []
    for line in lines:
        if line.startswith(")"):
            return tuple(parameters)
        try:
            parameters.append(parameter_in(line))
            if [p.name for p in parameters].count(parameters[-1].name) > 1:
                raise ValueError(f"a second parameter named {parameters[-1].name}")
            if parameters[-1].shape and any(p.shape is None for p in parameters):
                raise ValueError(f"the array {parameters[-1].name} must come before all numbers")
        except ValueError as error:
            raise ValueError(f"{place_of(text, place)}: {kernel}: {error}") from None
        place += len(line) + 1
    raise ValueError(f"{place_of(text, start.start())}: the parameters of {kernel} have no end")


def parameter_in(line: str) -> Parameter:
    """Return the parameter that a line declares.  Raises ValueError if it cannot be read."""
    declared = DECLARATION.fullmatch(line.strip())
    if not declared:
        raise ValueError(f"not one parameter, such as `{EXAMPLE}`: `{line.strip()}`")
    name, kind, comment = declared["name"], declared["type"], declared["comment"] or ""
    shape = SHAPE.fullmatch(comment)
    if not declared["pointer"]:
        if declared["const"] or kind not in NUMBER_TYPES:
            raise ValueError(f"{name} is a number; its type must be {' or '.join(NUMBER_TYPES)}")
        if comment.startswith("("):
            raise ValueError(f"{name} is a number and has a shape, {comment}")
        return Parameter(name, kind, None)
    if kind not in ARRAY_TYPES:
        raise ValueError(f"{name} is an array; its elements must be {' or '.join(ARRAY_TYPES)}")
    if not shape:
        raise ValueError(f"{name} needs its shape, as in `{EXAMPLE}`, not `{comment}`")
    axes = tuple(filter(None, shape["axes"].replace(" ", "").split(",")))
    return Parameter(name, kind, axes, bool(declared["const"]), bool(shape["optional"]))


def place_of(text: str, position: int) -> str:
    """Return "file:line" of a position in a text, by the #line directive before it."""
    before = text[:position]
    directives = list(re.finditer(r'^#line (\d+) "(.*)"\n', before, flags=re.M))
    if not directives:
        return f"line {1 + before.count(chr(10))}"
    last = directives[-1]
    return f"{last[2]}:{int(last[1]) + before.count(chr(10), last.end())}"
