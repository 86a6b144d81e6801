"""Tests of alignment/log_probs."""
