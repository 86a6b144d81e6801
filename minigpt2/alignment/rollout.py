"""Rollouts.

Why
    The policy answers prompts; what it wrote is what it learns from.
"""
