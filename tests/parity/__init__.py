"""Parity with the reference implementation, transformers on PyTorch."""
