"""Contenders at one job: built, compared, then timed in turns; each in a process of its own."""

from statistics import mean, median

import numpy as np

from minigpt2.errors import UserError
from tests.benchmarks.gpu.jobs import COMPARED
from tests.benchmarks.peers.worker import BARE, Worker

OURS = "ours"
AGREE = {"float32": 1e-4, "float16": 0.01, "bfloat16": 0.05}  # losses


class Race:
    """The contenders that still run, and what is known of each: name -> measurements.

    A contender that fails, disagrees or takes too long is left out, with the reason under
    "failed".
    """

    def __init__(self, plan, names, weights, how, patience, say):
        self.plan, self.say = plan, say
        self.measured = {name: {} for name in names}
        self.workers = {n: Worker(n, weights.path, plan.job, how, patience) for n in names}
        weights.make()  # while they import what they need
        for worker in self.workers.values():
            worker.begin_build()
        for name, built in self.each("build"):
            self.measured[name] |= {"built": built.seconds, "notes": built.notes}

    def each(self, call, *arguments):
        """Ask one contender after the other; yields its name and the answer."""
        for name, worker in list(self.workers.items()):
            try:
                yield name, worker.build() if call == "build" else worker.ask(call, *arguments)
            except UserError as error:
                self.leave_out(name, "failed", str(error))

    def all_at_once(self, call, *arguments):
        """The same, but all work at the same time: for what is not timed."""
        for worker in self.workers.values():
            worker.begin(call, *arguments)
        for name, worker in list(self.workers.items()):
            try:
                yield name, worker.answer()
            except UserError as error:
                self.leave_out(name, "failed", str(error))

    def leave_out(self, name, key, reason):
        """Go on without a contender."""
        self.measured[name][key] = reason
        self.workers.pop(name).end()
        self.say(f"  {name}: {reason}")

    def end(self):
        """End all processes."""
        for worker in self.workers.values():
            worker.end()

    def compare(self):
        """Take the first steps and leave out contenders whose losses are not ours."""
        losses = {}
        for name, taken in self.all_at_once("steps", COMPARED):
            losses[name] = [loss for loss, _ in taken]
            self.measured[name] |= {"losses": losses[name], "first_step": taken[0][1]}
        peers = [name for name in losses if name not in (OURS, BARE)]
        for name in peers if OURS in losses else ():
            apart = max(abs(np.subtract(losses[name], losses[OURS])))
            self.measured[name]["losses_differ_by"] = float(apart)
            if not apart <= AGREE[self.plan.precision]:
                reason = f"its losses {losses[name]} are not ours, {losses[OURS]}"
                self.leave_out(name, "failed", reason)
        running = [self.measured[name] for name in self.workers]
        apart = [own["losses_differ_by"] for own in running if "losses_differ_by" in own]
        if apart:
            self.say(f"  losses agree to {max(apart):.1e} over {COMPARED} steps")

    def take_turns(self, turns, steps):
        """Warm up, then time steps in turns; the first step of a turn only wakes the contender."""
        for _ in self.all_at_once("steps", self.plan.warm - COMPARED):
            pass
        for number in range(turns):
            for name, taken in self.each("steps", steps):
                seconds = [time for _, time in taken]
                self.measured[name].setdefault("seconds", []).extend(seconds[1:])
            self.say(f"  turn {number + 1} of {turns}: " + ", ".join(self.last(steps - 1)))

    def last(self, number):
        """The medians of the last steps, as text."""
        for name, measured in self.measured.items():
            if name in self.workers and "seconds" in measured:
                yield f"{name} {median(measured['seconds'][-number:]) * 1e3:.1f} ms"

    def finish(self, names, steps):
        """The memory of all, and the time by kernel of some."""
        for name, peak in self.each("memory"):
            self.measured[name]["peak_memory"] = peak
        for name in list(self.workers):
            if name not in names:
                self.workers.pop(name).end()
        for name, worker in self.workers.items():
            try:
                times = worker.ask("kernels", steps)
                self.measured[name] |= {"busy": times.busy, "kernels": times.kernels}
            except UserError as error:  # what was timed before still holds
                self.measured[name]["no_kernels"] = str(error)
                self.say(f"  {name}: {error}")


def timed_steps(plan, turns, steps):
    """The numbers of the steps whose times count."""
    first = [plan.warm + turn * steps for turn in range(turns)]
    return [start + k for start in first for k in range(1, steps)]


def summed_up(plan, measured, ours, numbers, floor):
    """Medians: what a row of the table shows; `floor` has the least seconds of each step."""
    if "failed" in measured or "seconds" not in measured:
        return measured
    tokens = [plan.job.tokens(step) for step in numbers]
    seconds = measured["seconds"]
    measured |= {
        "median": median(seconds),
        "mean": mean(seconds),  # with the steps that meet a new shape
        "spread": [min(seconds), max(seconds)],
        "tokens_per_second": median(np.divide(tokens, seconds)),
        "floor": median(floor),
        "share_of_floor": median(np.divide(floor, seconds)),
    }
    if "seconds" in ours:
        measured["times_ours"] = median(np.divide(seconds, ours["seconds"]))
    if measured.get("busy"):
        measured["idle"] = max(0.0, 1 - measured["busy"] / measured["median"])
    return measured
