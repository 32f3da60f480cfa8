"""A stream that runs by itself, from a source to its outputs, and is changed meanwhile."""
