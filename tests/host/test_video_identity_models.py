"""What Stream Video resumes by: the MODEL with its patches and memories, and the node's inputs."""

from importlib import import_module

import comfy_api.latest
import folder_paths
import pytest
import torch
from host_bank import banked
from host_stream import core, patched, prompt, random
from live_stream_inputs import TinyVAE
from stream_video import Calls, StoppedError, block_clip, translate_video

KEY = "diffusion_model.input_blocks.1.1.proj_in.weight"


def lora(model, seed=0, strength=1.0):
    """A clone with a patch on one of the UNet's weights."""
    weight = model.model.state_dict()[KEY]
    clone = model.clone()
    clone.add_patches({KEY: (random(*weight.shape, seed=seed) * 0.01,)}, strength)
    return clone


def core_patch(module, name, *settings):
    """Put one of ComfyUI's own nodes on a MODEL."""
    made = getattr(import_module(f"comfy_extras.{module}"), name)

    def apply(model):
        if hasattr(made, "execute"):
            return made.execute(model, *settings).args[0]
        return getattr(made(), made.FUNCTION)(model, *settings)[0]

    return apply


def unlike(models):
    """Names of models that another one shares its fingerprint with."""
    fingerprint = core("host.identity").model_identity
    named = {what: fingerprint(model) for what, model in models.items()}
    return {what for what in named if [*named.values()].count(named[what]) > 1}


def test_every_setting_of_a_model_counts(sd15, motion):
    models = {
        "plain": sd15,
        "LoRA": lora(sd15),
        "other LoRA": lora(sd15, seed=1),
        "LoRA's strength": lora(sd15, strength=0.5),
        "two LoRAs": lora(lora(sd15)),
        "motion": patched(sd15, motion, 4, 2),
        "window": patched(sd15, motion, 5, 2),
        "warm-up": patched(sd15, motion, 4, 3),
        "attention": patched(sd15, motion, 4, 2, "bidirectional"),
        "bank": banked(sd15),
        "queue": banked(sd15, kind="queue"),
        "queue's length": banked(sd15, kind="queue", queue_frames=3),
        "interval": banked(sd15, interval=3),
        "fusion": banked(sd15, fusion_strength=0.5),
        "threshold": banked(sd15, similarity_threshold=0.4),
        "fuse": banked(sd15, fuse=("middle",)),
        "extend": banked(sd15, extend=("middle",)),
        "both": patched(banked(sd15), motion, 4, 2),
        "FreeU": core_patch("nodes_freelunch", "FreeU_V2", 1.3, 1.4, 0.9, 0.2)(sd15),
    }
    assert not unlike(models)


def test_what_makes_no_difference_does_not_count(sd15):
    """A merging bank has no queue, and levels are a set."""
    fingerprint = core("host.identity").model_identity
    pairs = [
        (banked(sd15), banked(sd15, queue_frames=5)),
        (banked(sd15, fuse=("middle", "up 2")), banked(sd15, fuse=("up 2", "middle"))),
        (sd15, sd15.clone()),
    ]
    for one, other in pairs:
        assert fingerprint(one) == fingerprint(other)


def test_other_weights_count_and_reloaded_ones_do_not(golden, golden_folder, motion):
    module, engine = golden
    fingerprint = core("host.identity").model_identity
    path = golden_folder / "live2diff.ckpt"

    def build(change=lambda sd15, motion: None):
        sd15 = module.build_sd15(golden_folder / "unet.safetensors")
        motion = engine.live2diff_patch.load_motion_module(str(path))
        change(sd15, motion)
        return fingerprint(patched(lora(sd15), motion, 4, 2))

    def double(weights):
        next(iter(weights.parameters())).data.mul_(2)

    usual = build()
    assert usual == build()
    assert usual != build(lambda sd15, motion: double(sd15.model.diffusion_model))
    assert usual != build(lambda sd15, motion: double(motion.model))


# The node: what gets a folder of its own


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "out"))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    return tmp_path


@pytest.fixture
def clip(folders):
    return block_clip(folders, range(8))


@pytest.fixture
def folder_of(folders, sd15, clip, monkeypatch):
    """Start a run, stop it at once, and say which new folder it had."""
    calls, seen = Calls(sd15), set()
    # A run that has no frame yet leaves nothing.
    monkeypatch.setattr(core("run.partial_folder").PartialFolder, "remove", lambda self: None)

    def folder(clip=clip, model=sd15, **changes):
        with calls.stopping_at(1), pytest.raises(StoppedError):
            translate_video(clip, model, **changes)
        root = folders / "out" / "live2diff_partial"
        now = {path.name for path in root.iterdir() if path.is_dir()}
        new = now - seen
        seen.update(now)
        assert len(new) <= 1
        return new.pop() if new else None

    return folder


def graph(**settings):
    nodes = {
        "1": {"class_type": "FreeU", "inputs": settings},
        "2": {"class_type": "Load", "inputs": {"file": "clip"}},
        "5": {"class_type": "Stream", "inputs": {"model": ["1", 0], "video": ["2", 0]}},
    }
    return nodes, "5"


def test_every_input_of_the_node_has_a_folder_of_its_own(folder_of, folders, clip):
    part = comfy_api.latest.InputImpl.VideoFromFile
    other = block_clip(folders, [0, 1, 2, 3, 4, 5, 6, 1], name="other")
    assert folder_of()
    changes = {
        "size": {"size": "fill", "width": 64, "height": 72},
        "encoder": {"codec": "h264"},
        "crf": {"codec": "h264", "crf": 20},
        "start": {"clip": part(str(clip), start_time=0.08)},
        "duration": {"clip": part(str(clip), duration=0.16)},
        "video": {"clip": other},
        "graph": {"graph": graph(b1=1.3)},
        "setting in the graph": {"graph": graph(b1=1.4)},
        "prompt": {"positive": prompt(5)},
        "seed": {"seed": 4},
        "steps": {"steps": 6},
        "denoise": {"denoise": 0.75},
        "cfg": {"cfg": 2.0},
        "sigmas": {"sigmas": torch.tensor([3.0, 1.0, 0.0])},
        "checkpoint_every": {"checkpoint_every": 4},
    }
    assert [what for what, change in changes.items() if folder_of(**change) is None] == []


def test_the_same_inputs_find_the_same_folder(folder_of, clip):
    assert folder_of(graph=graph(b1=1.3))
    assert folder_of(graph=graph(b1=1.3), vae=TinyVAE(), positive=prompt()) is None
    # What is not used at all: the crf of lossless, the size of 'keep', an unread negative.
    assert folder_of(graph=graph(b1=1.3), crf=20, width=72, negative=prompt(6)) is None
    # The file counts by content, the node that loads it does not.
    moved = graph(b1=1.3)
    moved[0]["2"]["inputs"]["file"] = str(clip)
    assert folder_of(graph=moved, clip=clip.rename(clip.with_name("moved.mov"))) is None


def test_the_type_it_computes_in_counts(folder_of, sd15, monkeypatch):
    assert folder_of()
    monkeypatch.setattr(sd15.model, "manual_cast_dtype", torch.bfloat16)
    assert folder_of()
