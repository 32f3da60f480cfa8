"""The runs of the stream nodes: a clip, a video file, a live stream; and their saved states."""
