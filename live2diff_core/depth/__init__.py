"""Depth of frames: MiDaS, and the ranges that normalise its depth to 0..1."""
