"""Which device runs the kernels under test: `pytest --device`."""

from minigpt2.device.devices import cupy

DEVICES = ("emulated", "cuda")
chosen = [DEVICES[0]]


def choose(device):
    """Choose a device.  Raises UserError if it is a GPU, and there is none."""
    if device == "cuda":
        cupy()
    chosen[0] = device


def device_under_test():
    """The device that was chosen."""
    return chosen[0]
