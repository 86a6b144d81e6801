"""Advantages.

Why
    What counts is by how much an answer was better than expected.
"""
