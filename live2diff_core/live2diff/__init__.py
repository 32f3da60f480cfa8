"""Live2Diff's memory: temporal attention over a KV-cache, and the motion modules that do it."""
