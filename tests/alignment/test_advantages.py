"""Tests of alignment/advantages."""
