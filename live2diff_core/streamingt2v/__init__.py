"""Text to video of any length: StreamingT2V (Henschel et al., 2024) and its enhancer."""
