"""Which device runs the kernels under test: the option `--device` of pytest."""

from minigpt2.device.devices import cupy

DEVICES = ("emulated", "cuda")
options = {"device": DEVICES[0]}


def choose_device(device):
    """Choose a device.  Raises UserError if it is a GPU, and there is none."""
    if device == "cuda":
        cupy()
    options["device"] = device


def device_under_test():
    """The device that was chosen."""
    return options["device"]
