"""Tests of alignment/grpo."""
