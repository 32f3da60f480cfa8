"""Live2Diff's memory: motion modules with temporal attention over a KV-cache."""
