"""Preference pairs.

Why
    A preference pair is a prompt with two answers, one chosen and one rejected.
"""
