"""Measures translated videos against their inputs, frame by frame, in constant memory."""
