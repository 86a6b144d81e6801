"""Tests of alignment/ppo."""
