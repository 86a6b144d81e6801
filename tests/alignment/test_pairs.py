"""Tests of alignment/pairs."""
