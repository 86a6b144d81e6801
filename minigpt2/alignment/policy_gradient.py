"""Policy gradient.

Why
    The gradient of an expected reward is an expectation, too, so samples estimate it.
"""
