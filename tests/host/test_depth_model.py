"""The depth model and its nodes inside a real ComfyUI (CPU), with a stand-in file."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import safetensors.torch
import torch
from pretended_device import AWAY
from pretended_host import PretendedHost
from torch import Tensor, nn
from torch.nn.functional import interpolate

ROOT = Path(__file__).resolve().parents[2]


def _standin() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "standin_midas", ROOT / "devtools" / "standin_midas.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def midas_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in, under a name that says nothing."""
    path = tmp_path_factory.mktemp("midas") / "some model.pt"
    _standin().write(path)
    return path


@pytest.fixture
def core(pack: ModuleType) -> ModuleType:
    return importlib.import_module(f"{pack.__name__}.live2diff_core.depth.model")


@pytest.fixture
def node(pack: ModuleType) -> ModuleType:
    _folders(pack).register_model_folders()
    return importlib.import_module(f"{pack.__name__}.nodes.depth")


def _folders(pack: ModuleType) -> ModuleType:
    return importlib.import_module(f"{pack.__name__}.nodes.model_folders")


@functools.cache
def _load(core: ModuleType, path: Path):
    return core.DepthModel.from_file(path)


@functools.cache
def _network(core: ModuleType) -> nn.Module:
    return core.build_network()


@pytest.fixture(scope="module", autouse=True)
def _release() -> Iterator[None]:
    """Drop the cached models while ComfyUI's modules, which they need for that, still stand."""
    yield
    _load.cache_clear()
    _network.cache_clear()


class TinyNetwork(nn.Module):
    """In place of DPT: depth is the frame's brightness; keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(3.0))
        self.pretrained = SimpleNamespace(activations={})
        self.seen: list[Tensor] = []

    def forward(self, frames: Tensor) -> Tensor:
        self.seen.append(frames)
        self.pretrained.activations["1"] = frames
        return (frames.mean(dim=1) + 1.0) * self.scale


@pytest.fixture
def tiny(core: ModuleType):
    network = TinyNetwork()
    return core.DepthModel(network, release=network.pretrained.activations.clear)


def _frames(count: int, height: int = 48, width: int = 64, seed: int = 0) -> Tensor:
    """Frames [F, H, W, 3] in 0..1 with large soft shapes, each different."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 5, generator=generator)
    return interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1).movedim(1, -1)


# The real network, on the stand-in's weights.


def test_the_standin_has_the_real_layout(core: ModuleType) -> None:
    layout = _standin().layout()
    network = {name: tuple(value.shape) for name, value in _network(core).state_dict().items()}
    assert layout == network
    # 4 bytes each make the 493 MB of the published files.
    assert sum(torch.Size(shape).numel() for shape in layout.values()) == 123_146_985


def test_the_standin_is_reproducible() -> None:
    standin = _standin()
    name = "scratch.output_conv.0.weight"
    shape = standin.layout()[name]
    assert torch.equal(standin._weight(name, shape, 5), standin._weight(name, shape, 5))
    assert not torch.equal(standin._weight(name, shape, 5), standin._weight(name, shape, 6))


def test_a_batch_gives_what_single_frames_give(core: ModuleType, midas_file: Path) -> None:
    model, frames = _load(core, midas_file), _frames(2)
    together = core.resize_depth(model.predict(frames, batch_size=2), 48, 64)
    assert together.shape == (2, 48, 64)
    assert together.dtype == torch.float32
    assert together.min() >= 0.0
    # The low-level way, on the weights that are loaded by now.
    raw = torch.cat([model.infer(frame[None]) for frame in frames])
    assert raw.shape == (2, core.SIZE, core.SIZE)
    assert not model.patcher.model.pretrained.activations
    singly = core.resize_depth(raw, 48, 64)
    torch.testing.assert_close(together, singly, rtol=1e-4, atol=1e-4 * float(singly.max()))
    # Every frame its own depth, not constant, and smooth: neighbours differ little.
    assert together.std(dim=(1, 2)).min() > 0.01
    assert (together[0] - together[1]).abs().max() > 0.1
    assert together.diff(dim=2).abs().mean() / together.std() < 0.35


def test_loading_and_running_need_no_network_and_no_other_detector(
    core: ModuleType, midas_file: Path, tmp_path: Path
) -> None:
    # A mediapipe without `solutions`, as 0.10.30 and newer: importing controlnet_aux would fail.
    (tmp_path / "mediapipe.py").write_text("")
    script = """
import socket, sys, urllib.request
def refuse(*args, **kwargs):
    raise AssertionError(f"network access: {args}")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
import comfy.cli_args
comfy.cli_args.args.cpu = True
import torch
from live2diff_core.depth.model import DepthModel
model = DepthModel.from_file(sys.argv[1])
assert model.predict(torch.rand(1, 8, 8, 3)).std() > 0
assert "controlnet_aux" not in sys.modules
print("depth without network")
"""
    host = str(Path(sys.modules["comfy.cli_args"].__file__ or "").parents[1])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([host, str(tmp_path), str(ROOT)]),
        "HF_HOME": str(tmp_path / "hf"),
        "TORCH_HOME": str(tmp_path / "torch"),
    }
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, "-c", script, str(midas_file)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "depth without network" in done.stdout
    assert not (tmp_path / "hf").exists()
    assert not (tmp_path / "torch").exists()


# What happens around the network, with a tiny one.


def test_frames_go_in_as_the_released_code_sends_them(core: ModuleType, tiny) -> None:
    frames = _frames(2, height=40, width=72)
    tiny.load()
    raw = tiny.infer(frames)
    (seen,) = tiny.patcher.model.seen
    expected = interpolate(
        frames.movedim(-1, 1) * 2 - 1, (384, 384), mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(seen, expected)
    assert raw.shape == (2, 384, 384)
    assert not tiny.patcher.model.pretrained.activations


def test_a_clip_goes_through_in_batches_with_progress(core: ModuleType, tiny) -> None:
    calls: list[tuple[int, int]] = []
    depth = tiny.predict(_frames(7), batch_size=3, progress=lambda *done: calls.append(done))
    assert [len(batch) for batch in tiny.patcher.model.seen] == [3, 3, 1]
    assert calls == [(3, 7), (6, 7), (7, 7)]
    assert depth.shape == (7, core.SIZE, core.SIZE)


def test_the_batch_shrinks_to_the_device(
    core: ModuleType, tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "comfy.model_management.get_total_memory", lambda device: 2.5 * core._FRAME_BYTES
    )
    tiny.predict(_frames(5), batch_size=4)
    assert [len(batch) for batch in tiny.patcher.model.seen] == [2, 2, 1]


def test_the_host_owns_the_weights(core: ModuleType, tiny) -> None:
    management = importlib.import_module("comfy.model_management")
    tiny.predict(_frames(1))
    assert any(loaded.model is tiny.patcher for loaded in management.current_loaded_models)
    assert tiny.dtype == torch.float32
    assert tiny.load_device.type == "cpu"


def test_weights_that_the_host_would_leave_behind_are_loaded(
    core: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with --novram."""
    with PretendedHost(monkeypatch, low=True):
        model = core.DepthModel(TinyNetwork())
        assert model.load_device == AWAY
        model.predict(_frames(1))
        assert model.patcher.model.scale.device == AWAY


def test_an_interrupt_stops_between_batches(tiny) -> None:
    management = importlib.import_module("comfy.model_management")
    with pytest.raises(management.InterruptProcessingException):
        tiny.predict(
            _frames(6),
            batch_size=2,
            progress=lambda *_: management.interrupt_current_processing(True),
        )
    assert len(tiny.patcher.model.seen) == 1


def test_depth_that_is_not_finite_is_refused(tiny) -> None:
    tiny.patcher.model.scale.fill_(float("nan"))
    with pytest.raises(RuntimeError, match="NaN or infinite depth"):
        tiny.predict(_frames(1))


def test_depth_that_overflows_is_estimated_once_more_in_float32(core: ModuleType) -> None:
    model, frames = core.DepthModel(TinyNetwork()), _frames(3)
    exact = model.predict(frames)
    model.dtype = torch.float16
    model.patcher.model.to(torch.float16)
    # 20,000 times 6 is more than float16 holds.
    model.patcher.model.scale.fill_(20_000.0)
    model.patcher.model.forward = lambda x: (x.mean(dim=1) + 3.0) * 3 * model.patcher.model.scale
    found = model.predict(frames)
    assert found.isfinite().all() and model.infer(frames).isinf().any()
    torch.testing.assert_close(found, ((exact / 3) + 2) * 60_000, rtol=1e-3, atol=0)


class ShortOfMemory(TinyNetwork):
    """Has room for `most` frames."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def forward(self, frames: Tensor) -> Tensor:
        if len(frames) > self.most:
            raise torch.cuda.OutOfMemoryError("Allocation on device")
        return super().forward(frames)


@pytest.mark.parametrize("most, batches", [(4, [4, 4, 3]), (3, [2] * 5 + [1]), (1, [1] * 11)])
def test_batches_become_smaller_when_memory_runs_out(
    core: ModuleType, tiny, caplog: pytest.LogCaptureFixture, most: int, batches: list[int]
) -> None:
    """And stay so, rather than run out again for every batch."""
    model, done = core.DepthModel(ShortOfMemory(most)), []
    found = model.predict(_frames(11), batch_size=4, progress=lambda n, _: done.append(n))
    assert torch.equal(found, tiny.predict(_frames(11)))
    assert [len(frames) for frames in model.patcher.model.seen] == batches
    assert done == [sum(batches[: n + 1]) for n in range(len(batches))]
    assert caplog.text.count("out of memory") == {4: 0, 3: 1, 1: 2}[most]


def test_one_frame_that_does_not_fit_is_an_error(core: ModuleType) -> None:
    with pytest.raises(torch.cuda.OutOfMemoryError):
        core.DepthModel(ShortOfMemory(0)).predict(_frames(2))


# Files.


class Harmful:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return pytest.fail, ("code in a depth model file was run",)


def _write_bare_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weights": Harmful()}, protocol=4))


def _write_truncated(path: Path) -> None:
    torch.save({"weights": torch.ones(10_000)}, path)
    path.write_bytes(path.read_bytes()[:20_000])


def _write_truncated_safetensors(path: Path) -> None:
    safetensors.torch.save_file({"weights": torch.ones(10_000)}, path)
    path.write_bytes(path.read_bytes()[:20_000])


def _write_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no model")


UNREADABLE = {
    "empty": (lambda path: path.write_bytes(b""), "at 0 bytes"),
    "noise": (lambda path: path.write_bytes(bytes(range(256)) * 40), "no model at all"),
    "truncated": (_write_truncated, "truncated"),
    "truncated safetensors": (_write_truncated_safetensors, "truncated"),
    "zip": (_write_zip, "no model at all"),
    "web page": (lambda path: path.write_bytes(b"<!DOCTYPE html><html>"), "web page"),
    "lfs": (
        lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256"),
        "Git LFS pointer",
    ),
    "code": (lambda path: torch.save({"a": torch.ones(1), "b": Harmful()}, path), "can run code"),
    "bare pickle": (_write_bare_pickle, "can run code"),
    "a list": (lambda path: torch.save([1, 2], path), "no tensors by name"),
    "numbers": (lambda path: torch.save({"epoch": 3}, path), "no tensors by name"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_file_that_cannot_be_read_is_refused(core: ModuleType, tmp_path: Path, kind: str) -> None:
    write, cause = UNREADABLE[kind]
    path = tmp_path / "depth.pt"
    write(path)
    with pytest.raises(ValueError, match=cause) as caught:
        core.DepthModel.from_file(path)
    assert "depth.pt" in str(caught.value)
    assert "dpt_hybrid_384.pt" in str(caught.value)


def test_a_missing_file_is_named(core: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no depth model at .*gone\.pt.*dpt_hybrid_384"):
        core.DepthModel.from_file(tmp_path / "gone.pt")


WRONG_MODELS = {
    "lora_unet_down_blocks_0_attentions_0.lora_up.weight": "a LoRA",
    "down_blocks.0.motion_modules.0.temporal_transformer.norm.weight": "a motion module",
    "model.diffusion_model.input_blocks.0.0.weight": "a diffusion checkpoint",
    "depth_head.projects.0.weight": "Depth Anything",
    "pretrained.layer1.0.weight": "MiDaS v2.1",
    "scratch.layer1_rn.weight": "another MiDaS network",
    "conv.weight": "is not MiDaS DPT-hybrid: 366 of 366",
}


@pytest.mark.parametrize("name", WRONG_MODELS)
def test_another_model_is_refused_by_name(core: ModuleType, tmp_path: Path, name: str) -> None:
    path = tmp_path / "dpt_hybrid_384.pt"
    torch.save({name: torch.ones(2, 2)}, path)
    with pytest.raises(ValueError, match=WRONG_MODELS[name]):
        core.check_layout(core.read_weights(path), _network(core), path)


def test_other_shapes_are_refused_with_an_example(core: ModuleType) -> None:
    """DPT-large has the same decoder, on wider features."""
    weights = {name: torch.empty(shape) for name, shape in _standin().layout().items()}
    weights["scratch.layer1_rn.weight"] = torch.empty(256, 257, 3, 3)
    with pytest.raises(ValueError, match=r"0 of 366 .* 1 have .*257, 3, 3\).*256, 256, 3, 3\)"):
        core.check_layout(weights, _network(core), Path("dpt_large_384.pt"))


def test_files_are_recognised_by_content_and_unwrapped(core: ModuleType, tmp_path: Path) -> None:
    plain = {"a.weight": torch.arange(3.0)}
    path = tmp_path / "misnamed.pt"
    safetensors.torch.save_file(plain, path)
    assert torch.equal(core.read_weights(path)["a.weight"], plain["a.weight"])
    path = tmp_path / "misnamed.safetensors"
    for content in (
        plain,
        {"state_dict": {"module.a.weight": plain["a.weight"]}, "epoch": 3},
        {"model": plain, "optimizer": {"lr": 0.1}},
    ):
        torch.save(content, path)
        weights = core.read_weights(path)
        assert list(weights) == ["a.weight"]
        assert torch.equal(weights["a.weight"], plain["a.weight"])


def test_the_unused_classifier_may_be_missing(core: ModuleType) -> None:
    weights = {name: torch.empty(shape) for name, shape in _standin().layout().items()}
    weights = {name: value for name, value in weights.items() if ".model.head." not in name}
    core.check_layout(weights, _network(core), Path("depth.pt"))


def test_a_missing_package_is_named(core: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, f"{core._MIDAS_ALIAS}.dpt_depth", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"controlnet-aux.*pip install -r requirements\.txt"):
        core.build_network()


def test_a_broken_package_is_named(core: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(core._MIDAS_ALIAS)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"timm.*pip install -r requirements\.txt"):
        core.build_network()


# Nodes.


def _grey_steps(count: int = 3, height: int = 16, width: int = 24) -> Tensor:
    """Frames whose brightness rises from left to right, and from frame to frame."""
    ramp = torch.linspace(0.1, 0.4, width).expand(height, width)
    frames = torch.stack([ramp + 0.1 * index for index in range(count)])
    return frames[..., None].repeat(1, 1, 1, 3)


@pytest.mark.parametrize("normalisation", ["running range", "per clip", "per frame (paper)"])
def test_estimate_depth_gives_one_grey_picture_per_frame(
    node: ModuleType, tiny, normalisation: str
) -> None:
    frames = _grey_steps()
    depth = node.Live2DiffEstimateDepth.execute(tiny, frames, normalisation).args[0]
    assert depth.shape == frames.shape
    assert depth.is_contiguous()
    assert depth.min() >= 0.0
    assert depth.max() <= 1.0
    assert torch.equal(depth[..., 0], depth[..., 1])
    assert torch.equal(depth[..., 0], depth[..., 2])
    assert depth[0, 0, -1, 0] > depth[0, 0, 0, 0] + 0.2


def test_normalisations_differ_as_they_say(node: ModuleType, tiny) -> None:
    frames = _grey_steps()
    execute = node.Live2DiffEstimateDepth.execute
    own = execute(tiny, frames, "per frame (paper)").args[0]
    clip = execute(tiny, frames, "per clip").args[0]
    torch.testing.assert_close(own[0], own[2])
    assert clip[2].mean() > clip[0].mean() + 0.2


def test_estimate_depth_takes_the_range_before_resizing(node: ModuleType, tiny) -> None:
    """As the released code: small frames do not lose the extremes of the network's picture."""
    frames = _frames(1, height=8, width=8, seed=4)
    depth = node.Live2DiffEstimateDepth.execute(tiny, frames, "per frame (paper)").args[0]
    raw = tiny.predict(frames)
    expected = (raw - raw.min()) / (raw.max() - raw.min())
    expected = interpolate(expected[None], (8, 8), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(depth[..., 0], expected)


def test_transparency_is_ignored(node: ModuleType, tiny) -> None:
    frames = _grey_steps()
    alpha = torch.rand(*frames.shape[:3], 1)
    execute = node.Live2DiffEstimateDepth.execute
    with_alpha = execute(tiny, torch.cat([frames, alpha], dim=-1), "per clip").args[0]
    assert torch.equal(with_alpha, execute(tiny, frames, "per clip").args[0])


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (torch.zeros(0, 16, 16, 3), "there are no frames"),
        (torch.zeros(1, 300, 513, 3), r"513x300 pixels.*Resize them to 512x296 first"),
        (torch.zeros(1, 16, 20, 3), r"20x16 pixels.*16x16 first"),
        (torch.zeros(1, 5, 16, 3), r"16x5 pixels.*16x8 first"),
        (torch.zeros(16, 16, 3), r"expected an IMAGE batch.*\[16, 16, 3\]"),
        (torch.zeros(1, 16, 16, 1), "expected an IMAGE batch"),
    ],
)
def test_unusable_frames_are_refused(node: ModuleType, tiny, frames: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        node.Live2DiffEstimateDepth.execute(tiny, frames, "per clip")
    assert not tiny.patcher.model.seen


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_pixels_that_are_not_finite_are_refused(node: ModuleType, tiny, value: float) -> None:
    frames = _grey_steps()
    frames[1, 3, 4, 2] = value
    with pytest.raises(ValueError, match="frame 1 has NaN or infinite pixels"):
        node.Live2DiffEstimateDepth.execute(tiny, frames, "per clip")


@pytest.fixture
def midas_folder(node: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty models/midas of our own."""
    folder_paths = importlib.import_module("folder_paths")
    extensions = folder_paths.folder_names_and_paths["midas"][1]
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "midas", ([str(tmp_path)], extensions))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path


def _combo(node: ModuleType) -> list[str]:
    return node.Live2DiffLoadDepthModel.define_schema().inputs[0].options


def test_an_empty_folder_says_which_file_to_put_where(node: ModuleType, midas_folder: Path) -> None:
    (chosen,) = _combo(node)
    load = node.Live2DiffLoadDepthModel
    message = load.validate_inputs(depth_model=chosen)
    assert "dpt_hybrid_384.pt" in message
    assert str(midas_folder) in message
    with pytest.raises(FileNotFoundError, match="no depth model is chosen"):
        load.execute(chosen)
    with pytest.raises(FileNotFoundError, match=r"dpt_hybrid_384\.pt is not there"):
        load.execute("dpt_hybrid_384.pt")


def test_files_outside_the_folder_cannot_be_named(node: ModuleType, midas_folder: Path) -> None:
    (midas_folder.parent / "outside.pt").write_bytes(b"")
    with pytest.raises(FileNotFoundError):
        node.Live2DiffLoadDepthModel.execute("../outside.pt")


def test_load_depth_model_lists_and_loads_the_file(
    node: ModuleType,
    core: ModuleType,
    midas_folder: Path,
    midas_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Building takes longer than reading; one network will do.
    monkeypatch.setattr(core, "build_network", lambda: _network(core))
    (midas_folder / "dpt_hybrid_384.pt").symlink_to(midas_file)
    (midas_folder / "notes.txt").write_text("not a model")
    assert _combo(node) == ["dpt_hybrid_384.pt"]
    assert node.Live2DiffLoadDepthModel.validate_inputs(depth_model="dpt_hybrid_384.pt") is True
    model = node.Live2DiffLoadDepthModel.execute("dpt_hybrid_384.pt").args[0]
    assert isinstance(model, core.DepthModel)
    name = "scratch.layer1_rn.weight"
    written = torch.load(midas_file, weights_only=True)[name]
    assert torch.equal(model.patcher.model.state_dict()[name], written.float())


def test_every_input_and_node_explains_itself(node: ModuleType) -> None:
    for cls in (node.Live2DiffLoadDepthModel, node.Live2DiffEstimateDepth):
        schema = cls.define_schema()
        schema.validate()
        assert schema.category == "Live2Diff"
        assert schema.description
        assert all(entry.tooltip for entry in [*schema.inputs, *schema.outputs])
        assert (ROOT / "web" / "docs" / f"{schema.node_id}.md").is_file()
        assert cls.GET_SCHEMA() is not None


def test_folders_keep_what_the_user_configured(
    pack: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_paths = importlib.import_module("folder_paths")
    own = {"midas": (["/data/depth"], set()), "live2diff": (["/data/motion"], {".bin"})}
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", own)
    for _ in range(2):
        _folders(pack).register_model_folders()
        models = Path(folder_paths.models_dir)
        assert own["midas"] == (
            ["/data/depth", str(models / "midas")],
            {".pt", ".pth", ".safetensors"},
        )
        assert own["live2diff"][0] == ["/data/motion", str(models / "live2diff")]
        assert own["live2diff"][1] == {".bin", ".ckpt", ".pt", ".pth", ".safetensors"}
        assert own["animatediff_models"][0] == [str(models / "animatediff_models")]
