"""Benchmarks; what they measure has the settings that the package makes before NumPy is loaded."""

import minigpt2  # noqa: F401
