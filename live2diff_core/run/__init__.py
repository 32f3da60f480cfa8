"""What a node runs: a clip, a file, a live stream; and the states that are saved of them."""
