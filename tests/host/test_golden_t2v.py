"""The recorded traces of StreamingT2V that lie here, and what the check of traces notices."""

import pytest
import torch
from host_stream import PACK
from safetensors.torch import load_file


@pytest.fixture(scope="module")
def module(pack):
    from devtools import golden_t2v

    return golden_t2v


@pytest.fixture(scope="module")
def engine(module):
    return module.load_engine(f"{PACK}.live2diff_core")


@pytest.fixture
def folder(golden_folder):
    return golden_folder.parent / "streamingt2v"


def test_the_traces_pass(module, engine, folder):
    errors = dict(module.check_folder(engine, folder))
    assert errors.keys() == {"trace-enhancer", "trace-enhancer-schedule", "trace-mawe"}
    assert all(error <= 1e-4 for error in errors.values()), errors


def test_the_enhancer_has_teeth(module, engine, folder):
    """Cuts that are fixed at one place give another film."""
    trace = load_file(str(folder / "trace-enhancer.safetensors"))
    trace["offsets"] = torch.zeros_like(trace["offsets"])
    with torch.inference_mode():
        run = module.RUNS["trace-enhancer"](engine, folder, trace, {})
        # What the first step finds shows it; the others build on it.
        blended = next(found for found in run if found[0] == "x0.0")
        assert module.largest_error(iter([blended]), {"x0.0": trace["x0.0"]}) > 1e-2


def test_the_check_notices_what_is_wrong(module):
    trace = {"eps.0": torch.ones(2, 8, 8), "x": torch.ones(1)}
    right = [("eps.0", torch.ones(2, 8, 8))]
    assert module.largest_error(iter(right), trace) == 0
    assert module.largest_error(iter([("eps.0", torch.full((2, 8, 8), 1.5))]), trace) == 0.5
    nan = torch.full((2, 8, 8), float("nan"))
    for wrong in ([], [("eps.1", nan)], [("eps.0", nan)], [("eps.0", torch.ones(2, 8, 4))]):
        assert module.largest_error(iter(wrong), trace) == float("inf")


def test_a_trace_may_hold_every_fourth_pixel(module):
    whole = torch.arange(128.0).view(2, 8, 8)
    trace = {"eps.0_every4": whole[..., ::4, ::4]}
    assert module.largest_error(iter([("eps.0", whole)]), trace) == 0
    assert module.largest_error(iter([("eps.0", whole + 12.7)]), trace) == pytest.approx(0.127, 0.1)


def test_folders_are_recognised(module, folder, tmp_path):
    assert module.trace_folders(folder) == [folder]
    assert module.trace_folders(folder.parent) == [folder]
    assert module.trace_folders(tmp_path) == []
