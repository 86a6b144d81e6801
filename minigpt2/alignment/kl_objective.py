"""KL-regularised objective.

Why
    The reward is raised while the policy stays close to where it began.
"""
