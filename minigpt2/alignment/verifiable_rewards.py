"""Verifiable rewards.

Why
    Some answers can be checked by a program.
"""
