"""What graphs for the live nodes begin with, on a real server."""

from video_graphs import CHECKPOINT, node

SAMPLING = {
    "model": ["apply", 0],
    "positive": ["positive", 0],
    "negative": ["positive", 0],
    "seed": 7,
    "steps": 4,
    "denoise": 0.5,
    "cfg": 1.0,
}


def live2diff_models(warmup=2, window=6):
    """Loaders, the MODEL with the motion module ("apply"), and the prompt."""
    return {
        "checkpoint": node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT),
        "motion": node("Live2DiffLoadMotionModule", motion_module="live2diff.ckpt"),
        "settings": node(
            "Live2DiffSettings",
            warmup_frames=warmup,
            window_size=window,
            attention_mode="causal_warmup",
        ),
        "apply": node(
            "Live2DiffApply",
            model=["checkpoint", 0],
            motion_module=["motion", 0],
            settings=["settings", 0],
        ),
        "positive": node("CLIPTextEncode", clip=["checkpoint", 1], text="a painting"),
    }
