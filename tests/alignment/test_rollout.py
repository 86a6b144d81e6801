"""Tests of alignment/rollout."""
