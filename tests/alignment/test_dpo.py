"""Tests of alignment/dpo."""
