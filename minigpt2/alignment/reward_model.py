"""Reward model.

Why
    A reward model learns from pairs how good an answer is.
"""
