"""Tests of alignment/policy_gradient."""
