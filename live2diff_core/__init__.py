"""The engine: causal, pipelined video-to-video translation on SD1.5.

Legend for the shapes in every docstring: N rows of a model call, F frames, T denoising steps,
L slots of the attention window, G frames denoised together, B conditionings in a batch, C channels,
h w latent size, HW = h*w tokens of one level, d channels of one head.
"""
