"""Trains motion modules (Live2Diff, section 3.5), through the modules that run at inference."""
