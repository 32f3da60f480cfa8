"""A small model in SD1.5's topology, trained in this project."""
