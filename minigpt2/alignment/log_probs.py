"""Log-probabilities.

Why
    Every loss of this part is a function of log-probabilities of answers.
"""
