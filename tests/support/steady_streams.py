"""Small models for logs of operations, and frames that are fed while the log records them.

A UNet of one level has the same layers and hooks as SD1.5's, and a tenth of its operations.
"""

import comfy.model_patcher
import comfy.ops
import comfy.supported_models
import torch
from host_bank import banked
from host_stream import core, patched, random

FRAMES = 20
WINDOW, WARMUP = 4, 2
# The warm-up, four rows in flight, and two frames in the banks of all four steps.
FILLING = 8
WIDTH, CONTEXT = 32, 32
UNET = {
    "use_checkpoint": False,
    "image_size": 32,
    "use_spatial_transformer": True,
    "legacy": False,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": WIDTH,
    "num_res_blocks": [1],
    "channel_mult": [1],
    "transformer_depth": [1],
    "transformer_depth_output": [1, 1],
    "transformer_depth_middle": 1,
    "context_dim": CONTEXT,
    "num_heads": 4,
}
CPU = torch.device("cpu")


def small_sd15(device=CPU):
    """A ModelPatcher of one level with random weights, float32."""
    config = comfy.supported_models.SD15(dict(UNET))
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "", device=device)
    draw_weights(model.diffusion_model)
    return comfy.model_patcher.CoreModelPatcher(model, load_device=device, offload_device=device)


def small_motion(device=CPU):
    """A motion module for it, with a depth encoder."""
    patch, module = core("live2diff.patch"), core("live2diff.motion_module")
    layout = core("live2diff.layout").MotionLayout(
        down=((WIDTH,),),
        up=((WIDTH, WIDTH),),
        mid=None,
        positions=24,
        depth_channels=WIDTH,
    )
    build = module.Build(torch.float32, device, comfy.ops.manual_cast)
    model = module.MotionModel(layout, build).eval().requires_grad_(False)
    draw_weights(model)
    patcher = comfy.model_patcher.CoreModelPatcher(model, load_device=device, offload_device=device)
    return patch.LoadedMotionModule("small", layout, patcher)


def draw_weights(module):
    """Fill all tensors of a module at random, small enough that activations stay finite."""
    with torch.no_grad():
        for index, tensor in enumerate([*module.parameters(), *module.buffers()]):
            tensor.copy_(random(*tensor.shape, seed=index) * 0.1)


def live2diff(model, motion, mode="causal_warmup"):
    """Apply the motion module with a window that fills soon."""
    return patched(model, motion, WINDOW, WARMUP if mode == "causal_warmup" else 0, mode)


# By name: (puts the memory on a MODEL, with depth, frames after which the operations recur).
MEMORIES = {
    "none": (lambda model, motion: model, False, 1),
    "causal_warmup": (live2diff, False, 1),
    "causal_warmup-depth": (live2diff, True, 1),
    "causal": (lambda model, motion: live2diff(model, motion, "causal"), False, 1),
    "causal-depth": (lambda model, motion: live2diff(model, motion, "causal"), True, 1),
    # Groups of several frames: half a window, and a whole one.
    "sliding": (lambda model, motion: live2diff(model, motion, "sliding"), True, 2),
    "bidirectional": (lambda model, motion: live2diff(model, motion, "bidirectional"), True, 4),
    "merge-1": (lambda model, motion: banked(model, interval=1), False, 1),
    "merge-4": (lambda model, motion: banked(model, interval=4), False, 4),
    "queue-1": (lambda model, motion: banked(model, kind="queue", interval=1), False, 1),
    "queue-4": (lambda model, motion: banked(model, kind="queue", interval=4), False, 4),
    "both": (lambda model, motion: banked(live2diff(model, motion), interval=4), True, 4),
}


def count_calls(model, log):
    """Let a MODEL count its UNet's calls; to be asked before memories are put on."""

    def run(apply, call):
        log.count_call()
        return apply(call["input"], call["timestep"], **call["c"])

    model.set_model_unet_function_wrapper(run)


def cut_at_calls(model, log, calls=1, first=FILLING, frames=FRAMES):
    """Let a MODEL cut the log before the first of each frame's `calls` of its UNet.

    Frames `first` to `first + frames - 1` are recorded.
    """
    count = 0

    def run(apply, call):
        nonlocal count
        frame, number = divmod(count, calls)
        count += 1
        if number == 0 and first <= frame < first + frames:
            log.cut()
        elif number == 0 and frame == first + frames:
            log.pause()
        log.count_call()
        return apply(call["input"], call["timestep"], **call["c"])

    model.set_model_unet_function_wrapper(run)


def assert_steady(log, period=1):
    """Fail with everything that a steady state must not do."""
    problems = log.problems(period)
    assert not problems, "\n".join(["", *problems])
