"""Live2Diff's memory: causal temporal attention over a KV-cache, and its motion modules."""
