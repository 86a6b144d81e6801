"""Tests of alignment/kl_objective."""
