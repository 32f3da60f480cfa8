"""Depth of frames: MiDaS, and the ranges that bring it to 0..1."""
