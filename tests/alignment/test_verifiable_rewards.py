"""Tests of alignment/verifiable_rewards."""
