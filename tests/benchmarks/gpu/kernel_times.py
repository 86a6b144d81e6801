"""The GPU's time in each kernel of some steps, by NVIDIA's CUPTI through PyTorch's profiler."""

from time import perf_counter
from typing import NamedTuple


class Interval(NamedTuple):
    """What ran on the GPU, and when, in microseconds."""

    kernel: str
    start: float
    end: float


class KernelTimes(NamedTuple):
    """Of one step: how often each kernel ran and its microseconds; seconds in which any ran."""

    kernels: dict[str, tuple[float, float]]
    busy: float
    wall: float  # with the profiler at work


def profiled(step, number):
    """Take some steps under the profiler; their mean."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    torch.cuda.synchronize()
    with profile(activities=activities, acc_events=True) as events:
        started = perf_counter()
        for _ in range(number):
            step()
        torch.cuda.synchronize()
        wall = perf_counter() - started
    on_gpu = torch.autograd.DeviceType.CUDA
    kernels = [e for e in events.events() if e.device_type == on_gpu and not is_a_mark(e)]
    intervals = [Interval(e.name, e.time_range.start, e.time_range.end) for e in kernels]
    return summary(intervals, number, wall)


def is_a_mark(event):
    """Whether an event is no kernel, but the time of a named part of a program."""
    named = event.name.startswith(("Optimizer.", "ProfilerStep"))
    return named or getattr(event, "is_user_annotation", False)


def summary(intervals, steps, wall):
    """The intervals of some steps as the times of one."""
    kernels = {}
    for kernel, start, end in intervals:
        count, total = kernels.get(kernel, (0, 0.0))
        kernels[kernel] = count + 1, total + end - start
    each = {name: (count / steps, total / steps) for name, (count, total) in kernels.items()}
    return KernelTimes(each, covered(intervals) / 1e6 / steps, wall / steps)


def covered(intervals):
    """How long at least one of the intervals lasts: kernels may run at the same time."""
    total, reached = 0.0, float("-inf")
    for _, start, end in sorted(intervals, key=lambda interval: interval.start):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
