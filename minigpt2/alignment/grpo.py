"""GRPO.

Why
    Several answers to one prompt are each other's baseline.
"""
