"""PPO.

Why
    A batch of answers is used for several steps, none of which goes too far.
"""
