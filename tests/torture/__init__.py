"""Torture: whole runs are killed and stopped at random moments, and end with the same bits."""
