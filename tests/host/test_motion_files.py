"""Motion-module files: every layout that is accepted, and every wrong file with its message."""

import json
import os
import pickle
import zipfile

import pytest
import safetensors.torch
import torch
from host_stream import core, frames, patched, translate
from torch import nn


@pytest.fixture(scope="module")
def tensors(golden_folder):
    """The traces' motion module and depth encoder, without prefix or wrapper."""
    state = torch.load(golden_folder / "live2diff.ckpt", weights_only=True)["state_dict"]
    return {key.removeprefix("module."): value for key, value in state.items()}


def without_depth(tensors):
    return {key: value for key, value in tensors.items() if not key.startswith("flow_conv_in.")}


def with_positions(tensors, count):
    """Change the length of the position tables."""
    return {
        key: value[:, :1].repeat(1, count, 1) if key.endswith(".pe") else value
        for key, value in tensors.items()
    }


def with_middle(tensors):
    """Add AnimateDiff v2's middle block: as wide as the deepest level."""
    source = "down_blocks.3.motion_modules.1."
    middle = {
        "mid_block.motion_modules.0." + key.removeprefix(source): value
        for key, value in tensors.items()
        if key.startswith(source)
    }
    return {**tensors, **middle}


def prefixed(tensors):
    return {f"module.{key}": value for key, value in tensors.items()}


def write(path, content):
    if path.suffix == ".safetensors":
        safetensors.torch.save_file({key: v.contiguous() for key, v in content.items()}, str(path))
    else:
        torch.save(content, path)
    return path


def read(path):
    return core("live2diff.motion_file").read_motion_file(path)


WRAPPED = {
    "live2diff.ckpt": lambda t: {"global_step": 5, "state_dict": prefixed(t)},
    "no prefix.ckpt": lambda t: {"state_dict": t},
    "no wrapper.pth": prefixed,
    "bare.pt": lambda t: t,
    "prefix.safetensors": prefixed,
    "bare.safetensors": lambda t: t,
}


@pytest.mark.parametrize("name", WRAPPED)
def test_accepted_wrappings(pack, tmp_path, tensors, name):
    layout, kept = read(write(tmp_path / name, WRAPPED[name](tensors)))
    assert layout.depth_channels == 32 and layout.positions == 24 and layout.mid is None
    assert kept.keys() == tensors.keys()
    assert all(torch.equal(kept[key], tensors[key]) for key in kept)


def test_old_pickles_too(pack, tmp_path, tensors):
    path = tmp_path / "old.ckpt"
    torch.save({"state_dict": prefixed(tensors)}, path, _use_new_zipfile_serialization=False)
    assert read(path)[1].keys() == tensors.keys()


def test_name_means_nothing(pack, tmp_path, tensors):
    """A safetensors file called .ckpt, and a pickle called .safetensors."""
    one = write(tmp_path / "a.safetensors", tensors).rename(tmp_path / "sdxl_lora.ckpt")
    other = write(tmp_path / "b.pt", tensors).rename(tmp_path / "checkpoint.safetensors")
    assert read(one)[0] == read(other)[0]


ANIMATEDIFF = {
    "v1": lambda t: prefixed(with_positions(without_depth(t), 24)),
    "v2": lambda t: with_middle(with_positions(without_depth(t), 32)),
    "v3": lambda t: {"epoch": 1, "state_dict": prefixed(with_positions(without_depth(t), 32))},
}


@pytest.mark.parametrize("version", ANIMATEDIFF)
def test_animatediff_runs_causally(tmp_path, sd15, tensors, version):
    path = write(tmp_path / f"{version}.ckpt", ANIMATEDIFF[version](tensors))
    motion = core("live2diff.patch").load_motion_module(str(path))
    assert motion.name == f"{version}.ckpt"
    assert motion.layout.depth_channels is None
    assert (motion.layout.mid is not None) == (version == "v2")
    latents = frames(6)
    found = translate(patched(sd15, motion, 4, 2), latents)
    assert found.shape == latents.shape and found.isfinite().all()
    changed = latents.clone()
    changed[5] += 1
    assert torch.equal(translate(patched(sd15, motion, 4, 2), changed)[:4], found[:4])


def test_middle_module_is_used_and_counted(tmp_path, sd15, tensors):
    load = core("live2diff.patch").load_motion_module
    plain = load(str(write(tmp_path / "v3.ckpt", ANIMATEDIFF["v3"](tensors))))
    middle = load(str(write(tmp_path / "v2.ckpt", ANIMATEDIFF["v2"](tensors))))
    latents = frames(5)
    clips = [translate(patched(sd15, m, 4, 2), latents) for m in (plain, middle)]
    assert not torch.allclose(*clips, atol=1e-2)
    assert plain.layout.mid is None and middle.layout.mid == middle.layout.down[-1][-1]


def test_depth_needs_a_depth_encoder(tmp_path, sd15, tensors):
    motion = core("live2diff.patch").load_motion_module(
        str(write(tmp_path / "v3_sd15_mm.ckpt", ANIMATEDIFF["v3"](tensors)))
    )
    message = "cannot read it .*Apply Live2Diff.* modules have no depth encoder.*disconnect depth"
    with pytest.raises(core("live2diff.patch").UnsupportedModelError, match=message):
        translate(patched(sd15, motion), frames(2), frames(2))


def test_full_size_has_the_published_keys(pack, golden_folder):
    """The released live2diff.ckpt, key by key and shape by shape, at full SD1.5 size."""
    published = json.loads((golden_folder / "keys-full-size.json").read_text(encoding="utf-8"))
    published = {key.removeprefix("module."): list(shape) for key, shape in published.items()}
    module = core("live2diff.motion_module")
    levels = (320,) * 2, (640,) * 2, (1280,) * 2, (1280,) * 2
    up = (1280,) * 3, (1280,) * 3, (640,) * 3, (320,) * 3
    layout = module.MotionLayout(levels, up, None, 24, 320)
    model = module.MotionModel(layout, module.Build(torch.float16, torch.device("meta"), nn))
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == published


class Evil:
    """Unpickled carelessly, it leaves a mark."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def wrong_files(tensors):
    """Name: (content to save, or bytes; message)."""
    plain = without_depth(tensors)
    first = next(key for key in tensors if key.endswith("to_q.weight"))
    lora = "lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight"
    one = torch.zeros(2, 2)
    return {
        "mm_sdxl.safetensors": (
            {k: v for k, v in plain.items() if "blocks.3." not in k},
            "motion module for SDXL",
        ),
        "lora.safetensors": ({lora: one}, "this is a LoRA. Load it with a LoRA loader"),
        "motion lora.ckpt": (
            {f"{first}._lora.up": one, **plain},
            "this is a LoRA. Load it with a LoRA loader",
        ),
        "sd15.safetensors": (
            {"model.diffusion_model.input_blocks.0.0.weight": one},
            "whole checkpoint. Load it with core's Load Checkpoint",
        ),
        "controlnet.pth": ({"control_model.input_hint_block.0.weight": one}, "is a ControlNet"),
        "controlnet2.safetensors": (
            {"controlnet_cond_embedding.conv_in.weight": one},
            "ControlNet",
        ),
        "vae.pt": ({"encoder.conv_in.weight": one}, "has no motion modules; .* encoder.conv_in"),
        "no tensors.ckpt": ({"global_step": 5}, "holds no tensors"),
        "a list.ckpt": ([one], "holds a list, not named tensors"),
        "half.safetensors": (
            {k: v for k, v in tensors.items() if not k.startswith("up_blocks.2.")},
            "incomplete: modules per level are",
        ),
        "one missing.ckpt": (
            {k: v for k, v in tensors.items() if k != first},
            "incomplete: 1 tensors are missing, first .*to_q.weight",
        ),
        "half a depth encoder.ckpt": (
            {k: v for k, v in tensors.items() if k != "flow_conv_in.blocks.3.bias"},
            "incomplete: 1 tensors are missing, first flow_conv_in.blocks.3.bias",
        ),
        "other shape.ckpt": ({**tensors, first: one}, "has shape .2, 2. where .* belongs"),
        "unknown layer.ckpt": (
            {**tensors, "down_blocks.0.motion_modules.0.temporal_transformer.new.weight": one},
            "layer that is not known: .*new.weight",
        ),
        "uneven tables.ckpt": (
            {**plain, **with_positions({k: v for k, v in plain.items() if "up_blocks.0" in k}, 9)},
            "position tables are missing or differ",
        ),
        "page.ckpt": (
            b"<!DOCTYPE html><html><body>Not found</body></html>",
            "not a file of tensors",
        ),
        "pointer.safetensors": (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "pointer file is often saved in place of a model",
        ),
        "notes.txt": (b"some text", "not a file of tensors"),
        "empty.ckpt": (b"", r"not a file of tensors \(0 bytes\)"),
    }


WRONG = sorted(wrong_files({"x.to_q.weight": torch.zeros(1)}))


@pytest.mark.parametrize("name", WRONG)
def test_wrong_files_are_refused_by_name(pack, tmp_path, tensors, name):
    content, message = wrong_files(tensors)[name]
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        write(path, content)
    with pytest.raises(core("live2diff.motion_file").MotionFileError, match=message) as error:
        read(path)
    assert str(error.value).startswith(f"{name}: ")
    assert "Expected a motion module for SD1.5: Live2Diff's live2diff.ckpt" in str(error.value)


def test_missing_file(pack, tmp_path):
    with pytest.raises(
        core("live2diff.motion_file").MotionFileError, match="gone.ckpt: there is no such file"
    ):
        read(tmp_path / "gone.ckpt")


def test_folder_is_not_a_file(pack, tmp_path):
    with pytest.raises(
        core("live2diff.motion_file").MotionFileError, match="there is no such file"
    ):
        read(tmp_path)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "old"])
def test_pickles_with_code_do_not_run_it(pack, tmp_path, tensors, new):
    mark = tmp_path / "the code ran"
    path = tmp_path / "evil.ckpt"
    content = {"state_dict": prefixed(tensors), "hyper_parameters": Evil(mark)}
    torch.save(content, path, _use_new_zipfile_serialization=new)
    with pytest.raises(
        core("live2diff.motion_file").MotionFileError, match=r"asks to run code.*it wants \w+.mkdir"
    ):
        read(path)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists(), "the trap was not armed"


@pytest.mark.parametrize("protocol", [2, 4])
def test_bare_pickles_with_code_do_not_run_it(pack, tmp_path, protocol):
    mark = tmp_path / "the code ran"
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps(Evil(mark), protocol))
    with pytest.raises(
        core("live2diff.motion_file").MotionFileError, match="evil.pkl: .*not loaded"
    ):
        read(path)
    assert not mark.exists()


@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
@pytest.mark.parametrize("kept", [0.001, 0.02, 0.3, 0.999])
def test_truncated_files(pack, tmp_path, tensors, kind, kept):
    path = tmp_path / ("cut.safetensors" if kind == "safetensors" else "cut.ckpt")
    if kind == "safetensors":
        write(path, tensors)
    else:
        torch.save({"state_dict": tensors}, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(
        core("live2diff.motion_file").MotionFileError, match="truncated.*download it again"
    ):
        read(path)


@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_damaged_files_never_surprise(pack, tmp_path, tensors, kind):
    """Flipped bytes give a motion module or a MotionFileError, and no other exception."""
    path = tmp_path / "damaged"
    small = {
        key: value for key, value in tensors.items() if "down_blocks.0.motion_modules.0" in key
    }
    if kind == "safetensors":
        safetensors.torch.save_file({k: v.contiguous() for k, v in small.items()}, str(path))
    else:
        torch.save({"state_dict": small}, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(20):
            # Headers stand at the start, and at the end of zip files.
            place = int(torch.randint(-3000, 3000, (), generator=generator))
            damaged[place] = int(torch.randint(256, (), generator=generator))
        path.write_bytes(bytes(damaged))
        with pytest.raises(core("live2diff.motion_file").MotionFileError):
            read(path)


def test_zip_of_something_else(pack, tmp_path):
    path = tmp_path / "archive.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(
        core("live2diff.motion_file").MotionFileError, match="archive.ckpt: the file is .*damaged"
    ):
        read(path)


def test_positions_stay_exact_in_float8(tmp_path, tensors):
    """In float8 the position table would keep three bits of mantissa; weights may."""
    import comfy.ops

    module = core("live2diff.motion_module")
    path = write(tmp_path / "module.ckpt", tensors)
    layout, tensors = core("live2diff.motion_file").read_motion_file(path)
    build = module.Build(torch.float8_e4m3fn, torch.device("cpu"), comfy.ops.manual_cast)
    model = module.MotionModel.from_tensors(layout, tensors, build)
    assert {weight.dtype for weight in model.parameters()} == {torch.float8_e4m3fn}
    state = model.state_dict()
    tables = [name for name in state if name.endswith("pos_encoder.pe")]
    assert tables and all(torch.equal(state[name], tensors[name].float()) for name in tables)
    placed = model.position_tables(torch.float16, torch.device("cpu"))
    queries = [width.query for width in placed.by_width]
    assert all(query.dtype is torch.float16 and query.isfinite().all() for query in queries)
