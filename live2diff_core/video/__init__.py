"""Reads and writes video files. Imports neither torch nor anything else of this pack."""
