"""Signatures: what is read is what the compiler reads, and a mistake in the source is refused."""

import re
import subprocess
import sys

import pytest

from minigpt2.device.compile import kernels_in
from minigpt2.device.emulator import Machine
from minigpt2.device.includes import text_of
from minigpt2.device.kernel_specs import KERNELS
from minigpt2.device.launch import parameters_of
from minigpt2.device.signatures import Parameter, parameter_in, parameters_in
from minigpt2.shipped import shipped
from tests.kernels.support import needs_compiler

TAGS = {"float": "f4", "f16": "v2", "int": "i4", "long long": "i8"}  # of describe.h


def in_file(name):
    """The name of a kernel in its file: a second variant has another name outside."""
    return KERNELS[name].function or name


def declared_in(name):
    """A kernel's parameters as C++ has them: (const, type, pointer, name), comments left out."""
    text = re.sub(r"//.*", "", text_of(KERNELS[name].file))
    (inside,) = re.findall(rf"\b{in_file(name)}\(([^)]*)\)\s*{{", text)
    for parameter in inside.split(","):
        words = parameter.replace("__restrict__", "").replace("*", " * ").split()
        kind = " ".join(word for word in words[:-1] if word not in ("const", "*"))
        yield "const" in words, kind, "*" in words, words[-1]


@pytest.mark.parametrize("name", KERNELS)
def test_parameters_are_those_of_the_source(name):
    read = [(p.const, p.type, p.shape is not None, p.name) for p in parameters_of(name)]
    assert read == list(declared_in(name))


@needs_compiler
@pytest.mark.parametrize("name", KERNELS)
def test_parameters_are_those_that_the_compiler_sees(name):
    kernel = KERNELS[name]
    real = kernel.storage[0]
    module = Machine().compile(text_of(kernel.file), (f"-DREAL={real}", *kernel.options))
    tags = tuple(
        ("" if p.shape is None else "P" if p.const else "p") + (TAGS | {"real": TAGS[real]})[p.type]
        for p in parameters_of(name)
    )
    assert module.get_function(in_file(name)).signature == tags


@pytest.mark.parametrize("name", KERNELS)
def test_every_size_in_a_shape_is_a_letter_or_a_number(name):
    for parameter in parameters_of(name):
        for size in parameter.shape or ():
            assert re.fullmatch(r"[A-Z]|\d+", size), parameter


@pytest.mark.parametrize("name", KERNELS)
def test_an_array_that_a_kernel_asks_for_may_be_left_out(name):
    """The kernel asks by `if (a)` or `a ? ... : ...`."""
    text = text_of(KERNELS[name].file)
    body = text.split(f"\n{in_file(name)}(")[1].split("\n}\n")[0].split(") {", 1)[1]
    for parameter in parameters_of(name):
        if parameter.shape is not None and not parameter.optional:
            assert not re.search(rf"if \({parameter.name}\)|\b{parameter.name} \?", body)


SOUND = """#line 7 "sound.cu"
extern "C" __global__ void __launch_bounds__(64)
sound(
    const real* __restrict__ x,  // (N, C)
    const int* index,            // (N,), optional
    float* __restrict__ sums,    // (2, R, C)
    long long P,
    int C,  // a multiple of 4
    float eps
) {
    sums[0] = eps;
}
"""
READ = (
    Parameter("x", "real", ("N", "C"), const=True),
    Parameter("index", "int", ("N",), const=True, optional=True),
    Parameter("sums", "float", ("2", "R", "C")),
    Parameter("P", "long long", None),
    Parameter("C", "int", None),
    Parameter("eps", "float", None),
)


def test_a_sound_kernel_is_read():
    assert parameters_in(SOUND, "sound") == READ


MISTAKES = {
    "no shape": ("x,  // (N, C)", "x,", 9, "x needs its shape, as in `const real"),
    "no brackets": ("(N, C)", "N, C", 9, "x needs its shape, .* not `N, C`"),
    "a number for a shape": ("(N,), opt", "(N), opt", 10, "index needs its shape"),
    "a misspelt word": ("optional", "optinal", 10, "index needs its shape, .* `.N,., optinal`"),
    "a shape of a sum": ("(2, R, C)", "(2 R, C)", 11, "sums needs its shape"),
    "a shape of a number": ("P,", "P,  // (1,)", 12, "P is a number and has a shape"),
    "an unknown type": ("const real*", "const floot*", 9, "must be real or float or int"),
    "an array of long numbers": ("const int*", "const long long*", 10, "x is an array; its"),
    "an unknown number": ("float eps", "double eps", 14, "must be int or long long or float"),
    "a number of the storage type": ("float eps", "real eps", 14, "eps is a number; its type"),
    "a constant number": ("int C", "const int C", 13, "C is a number; its type"),
    "two on a line": ("long long P,\n   ", "long long P,", 12, "not one parameter, such as"),
    "no name": ("float eps", "float", 14, "not one parameter"),
    "another star": ("const int* index", "const int *index", 10, "not one parameter"),
    "a name twice": ("int C", "int P", 13, "a second parameter named P"),
    "a line of words": ("    long", "    // how many\n    long", 12, "not one parameter"),
    "an empty line": ("    long", "\n    long", 12, "not one parameter"),
    "an array behind a number": (
        "    float eps",
        "    float eps,\n    float* y  // (N,)",
        15,
        "the array y must come before all numbers",
    ),
    "on the kernel's line": ("sound(\n   ", "sound(", 8, "a parameter on the line of sound"),
    "no end": (SOUND[SOUND.index("    int C") :], "", 8, "the parameters of sound have no end"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_declaration_is_refused_with_its_line(mistake):
    old, new, line, message = MISTAKES[mistake]
    assert SOUND.count(old) == 1
    with pytest.raises(ValueError, match=rf"^sound\.cu:{line}: .*{message}"):
        parameters_in(SOUND.replace(old, new), "sound")


def test_a_kernel_that_the_text_lacks_is_an_error():
    with pytest.raises(ValueError, match="no kernel silence"):
        parameters_in(SOUND, "silence")


def test_without_line_directives_lines_are_counted_from_the_first():
    text = SOUND.partition("\n")[2].replace("int C", "short C")
    with pytest.raises(ValueError, match=r"^line 7: sound: C is a number"):
        parameters_in(text, "sound")


def test_included_files_do_not_shift_the_line():
    text = text_of("layer_norm.cu").replace("float* __restrict__ mean,", "float* mean mean,", 1)
    with pytest.raises(ValueError, match="layer_norm_forward: not one parameter") as refused:
        parameters_in(text, "layer_norm_forward")
    file, number, *_ = str(refused.value).split(":")
    lines = (shipped("kernels") / file).read_text(encoding="utf-8").splitlines()
    assert "float* __restrict__ mean," in lines[int(number) - 1]


def test_a_parameter_alone():
    assert parameter_in("int N") == Parameter("N", "int", None)


def test_no_source_is_read_before_a_kernel_is_launched():
    code = """
import pathlib
read, text = [], pathlib.Path.read_text
pathlib.Path.read_text = lambda path, *a, **k: read.append(path.suffix) or text(path, *a, **k)
from minigpt2.device import fused, launch
assert ".cu" not in read, read
launch.parameters_of("gelu_forward")
assert read.count(".cu") == 1, read
launch.parameters_of("gelu_forward")
assert read.count(".cu") == 1, read
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_of_kernels_are_found_where_their_parameters_are():
    for file in {kernel.file for kernel in KERNELS.values()}:
        for name in kernels_in(text_of(file)):
            assert parameters_in(text_of(file), name)
