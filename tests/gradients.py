"""Checks that a hand-written backward pass is the derivative of its forward pass.

Two witnesses, neither of which knows the backward pass:

- the complex step, Im f(x + i h v) / h, has no subtraction, so it agrees to rounding;
- the central difference, (f(x + h v) - f(x - h v)) / 2h, is off by a multiple of h², so a step ten
  times smaller is a hundred times better.  Where f is linear in an argument the multiple is 0, and
  the difference is exact at every step but for rounding.

Both are compared along random directions v and weighed with a random upstream gradient dy:
⟨dy, J v⟩ is the witness's number, ⟨Jᵀ dy, v⟩ is the backward pass's.  Inputs, dy and directions
come from streams of random numbers of their own, all in float64.

Their difference is told relative to the length of Jᵀ dy, the gradient itself.  The witness knows
that length without the backward pass: for normal directions it is the root mean square of its
numbers.  (Relative to |dy| |v| a wrong gradient would look smaller the more elements it has.)

A check that can't fail is worth nothing, so a case carries backward passes that are broken on
purpose, and each of them must be noticed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pytest

STEPS = (1e-2, 1e-3, 1e-4)
EXACT = 1e-11  # largest error of a complex step
ROUNDING = 1e-14  # a central difference of a linear function is off by less than this over its step
CAUGHT = 1e-3  # smallest error that a broken backward pass must show
SECOND_ORDER = (50, 200)  # how much better a ten times smaller step may be


@dataclass(frozen=True, eq=False)
class Case:
    """A function, its backward pass, and how both are to be tried.

    forward(*arguments) returns one array.  backward(dy, arguments) returns one gradient for each
    argument.  `arguments` names them in order, each with a function that draws it from a generator.
    A broken backward pass in `bugs` returns None for every gradient that it leaves right.
    """

    name: str
    forward: Callable
    backward: Callable
    arguments: dict[str, Callable]
    bugs: dict[str, Callable] = field(default_factory=dict)
    linear_in: tuple[str, ...] = ()

    def position(self, argument):
        """The argument's place among the arguments."""
        return list(self.arguments).index(argument)


class Disagreement(NamedTuple):
    """The worst of some random directions; `error` is relative to the gradient's length."""

    case: str
    argument: str
    witness: str
    analytic: float
    numeric: float
    error: float

    def __str__(self):
        return (
            f"{self.case}, gradient of {self.argument}: the backward pass says "
            f"{self.analytic:.12g}, the {self.witness} says {self.numeric:.12g} "
            f"(relative error {self.error:.1e})"
        )


def draw(case, seed=0):
    """The case's arguments and an upstream gradient, from two streams of random numbers."""
    stream = np.random.default_rng([seed, 0])
    arguments = tuple(make(stream) for make in case.arguments.values())
    shape = np.shape(case.forward(*arguments))
    return arguments, np.random.default_rng([seed, 1]).standard_normal(shape)


def complex_step(forward, arguments, i, direction, h=1e-30):
    """J v in argument i along the direction v, exact to rounding."""
    moved = [a.astype(complex) for a in arguments]
    moved[i] = moved[i] + 1j * h * direction
    return forward(*moved).imag / h


def central_difference(forward, arguments, i, direction, h):
    """J v in argument i along the direction v, off by a multiple of h²."""

    def at(step):
        moved = list(arguments)
        moved[i] = moved[i] + step * direction
        return forward(*moved)

    return (at(h) - at(-h)) / (2 * h)


def compare(case, argument, derivative, witness, backward=None, directions=4, seed=0):
    """The worst Disagreement of `backward` with the witness `derivative(forward, args, i, v)`."""
    i = case.position(argument)
    arguments, dy = draw(case, seed)
    gradient = (backward or case.backward)(dy, arguments)[i]
    vs = np.random.default_rng([seed, 2, i]).standard_normal((directions, *arguments[i].shape))
    analytic = np.array([(gradient * v).sum() for v in vs])
    numeric = np.array([(dy * derivative(case.forward, arguments, i, v)).sum() for v in vs])
    errors = abs(analytic - numeric) / (np.sqrt(np.mean(numeric**2)) or 1.0)
    worst = np.argmax(errors)  # the first that is not a number, if there is one
    return Disagreement(
        case.name,
        argument,
        witness,
        float(analytic[worst]),
        float(numeric[worst]),
        float(errors[worst]),
    )


def complex_step_error(case, argument, directions=4, seed=0, backward=None):
    """The worst Disagreement with the complex step."""
    return compare(case, argument, complex_step, "complex step", backward, directions, seed)


def central_difference_errors(case, argument, steps=STEPS, directions=4, seed=0):
    """The worst Disagreement with the central difference, for each step."""

    def at_step(h):
        def derivative(*along):
            return central_difference(*along, h)

        witness = f"central difference with step {h:g}"
        return compare(case, argument, derivative, witness, None, directions, seed)

    return tuple(at_step(h) for h in steps)


def follows_its_order(case, argument, errors, steps=STEPS):
    """Whether central differences are exact if linear, else a hundred times better a step."""
    if argument in case.linear_in:
        return all(one.error <= ROUNDING / h for one, h in zip(errors, steps, strict=True))
    low, high = SECOND_ORDER
    return low < errors[0].error / errors[1].error < high


def zeros(dy, arguments):
    """The laziest broken backward pass of all: every gradient is 0."""
    return tuple(np.zeros_like(a) for a in arguments)


def bugs_of(case, argument):
    """Name and backward pass of the case's bugs that spoil the gradient of this argument."""
    arguments, dy = draw(case)
    spoils = {name: bug(dy, arguments)[case.position(argument)] for name, bug in case.bugs.items()}
    return {name: case.bugs[name] for name, gradient in spoils.items() if gradient is not None}


def is_caught(case, argument, bug):
    """Whether the complex step tells this broken backward pass from a right one."""
    return complex_step_error(case, argument, backward=bug).error > CAUGHT


def each_gradient(cases):
    """A mark that runs a test for every argument of every case."""
    rows = [
        pytest.param(case, argument, id=f"{case.name}: {argument}")
        for case in cases
        for argument in case.arguments
    ]
    return pytest.mark.parametrize(("case", "argument"), rows)


def assert_exact(case, argument, bound=EXACT):
    """Fail unless the backward pass agrees with the complex step."""
    found = complex_step_error(case, argument)
    assert found.error <= bound, str(found)


def assert_in_order(case, argument):
    """Fail unless it agrees with central differences to their order."""
    found = central_difference_errors(case, argument)
    assert follows_its_order(case, argument, found), "\n".join(map(str, found))
