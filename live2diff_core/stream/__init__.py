"""The order in which frames pass the model: session, pipeline, schedule, noise, guidance, prompts.

Shapes, in every folder of the engine:

    N  rows of a model call, each a frame at a denoising step; B conditionings make B*N
    F  frames
    T  denoising steps
    R  groups of frames in a model call, at consecutive steps
    Q  frames of a group, N = R*Q
    L  frames in the attention window
    P  positions of a motion module
    C  channels; C0 of the UNet's first layer
    d  channels of an attention head
    h w  size of a latent, an eighth of a frame's; HW = h*w pixels of a UNet level, its tokens
"""
