"""Value function.

Why
    A value function expects the reward of an answer that has only begun.
"""
