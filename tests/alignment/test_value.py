"""Tests of alignment/value."""
