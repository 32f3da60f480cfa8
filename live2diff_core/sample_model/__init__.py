"""A small model that was trained in this project and ships with it, in SD1.5's topology."""
