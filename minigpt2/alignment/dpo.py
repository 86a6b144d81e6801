"""DPO.

Why
    The best policy is known in closed form, so pairs can train it without a reward model.
"""
