"""The options that a training run must have."""

OPTIONS = {"checkpoint": "sd15.safetensors", "videos": "videos", "output": "output"}
