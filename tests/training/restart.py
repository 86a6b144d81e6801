"""A run that is interrupted, and continues from nothing but what a checkpoint would hold."""

from dataclasses import fields

import numpy as np

from minigpt2.backend import array_module
from minigpt2.training.objective import WeightedNLL
from minigpt2.training.run import take_steps
from minigpt2.training.state import State


class Interrupted(Exception):
    """What a signal raises between two micro-batches."""


def reopened(state):
    """A new state, from copies of what a checkpoint stores; what it does not store is NaN."""
    stored = {f.name: getattr(state, f.name) for f in fields(State) if f.init}
    stored["parameters"] = state.parameters.like(state.parameters.flat.copy())
    stored["partial"] = [None if r is None else r.copy() for r in state.partial]
    stored["scale"] = type(state.scale)(**vars(state.scale))
    fresh = State(**stored | {name: stored[name].copy() for name in ("m", "v")})
    fresh.gradients.flat[...] = np.nan
    if state.partial:
        held = state.gradients.holding
        fresh.gradients.hold(held)
        for name in held & fresh.gradients.views.keys():
            fresh.gradients[name][...] = state.gradients[name]
    return fresh


def numbers_of(result):
    """What a step reports, without its time, in a form that compares NaN."""
    return repr(result._replace(seconds=0.0))


def whole_run(state, data, config):
    """Take all steps; returns the state and what each try reported."""
    return state, [numbers_of(r) for r in take_steps(state, data, WeightedNLL(), config)]


def broken_run(state, data, config, reopen=reopened):
    """Interrupt a run after every micro-batch; returns what `whole_run` does, and the places.

    `reopen` stores the state, and returns it as a new one.
    """
    results, places = [], []

    def between():
        place = state.step, state.scale.value, len(state.partial)
        if place not in places:
            places.append(place)
            raise Interrupted

    while state.step < config.steps:
        steps = take_steps(state, data, WeightedNLL(), config, between=between)
        try:
            results.append(numbers_of(next(steps)))
        except Interrupted:
            assert state.partial
        state = reopen(state)
    return state, results, places


def assert_same_bits(found, expected):
    """Two states agree in every bit."""
    for name in ("m", "v"):
        assert same(getattr(found, name), getattr(expected, name)), name
    assert same(found.parameters.flat, expected.parameters.flat)
    assert same(found.compute.flat, expected.compute.flat)
    for name in ("scale", "seed", "step", "epoch", "position", "partial", "validated", "best"):
        assert getattr(found, name) == getattr(expected, name), name


def same(found, expected):
    """Whether two arrays have the same bytes."""
    xp = array_module(found)
    on_host = [x if xp is np else xp.asnumpy(x) for x in (found, expected)]
    return on_host[0].tobytes() == on_host[1].tobytes()
