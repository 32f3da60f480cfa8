"""The numbers between which settings of long and enhanced videos lie."""

# Sides of latents that UNets halve three times, in pixels.
SIDE_STEP = 64
# Of long videos. The model was trained at 256x256.
SMALLEST, LARGEST = 64, 1024
MOST_STEPS = 1000
# Of the enhancer, whose heights are 2 modulo 8 in latents.
WIDTH, HEIGHT = 1280, 720
SMALLEST_WIDTH, SMALLEST_HEIGHT = 64, 80
MOST_ENHANCER_STEPS = 500
