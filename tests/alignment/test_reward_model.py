"""Tests of alignment/reward_model."""
