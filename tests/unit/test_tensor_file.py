"""Files of tensors: what the tests of motion modules and depth models leave open."""

import struct

import pytest
import torch
from safetensors.torch import save_file

from live2diff_core.host.tensor_file import TensorFileError, read_tensors

TENSORS = {"a.weight": torch.arange(3.0)}


def test_a_safetensors_header_that_begins_like_a_pickle_is_none(tmp_path):
    """The file begins with its header's length, whose lowest byte may be a pickle's first."""
    path = tmp_path / "a.safetensors"
    first_bytes = set()
    for padding in range(0, 256, 8):
        save_file(TENSORS, path, {"padding": "x" * padding})
        first_bytes.add(struct.unpack("<Q", path.read_bytes()[:8])[0] % 256)
        assert torch.equal(read_tensors(path)["a.weight"], TENSORS["a.weight"])
    assert 0x80 in first_bytes


def test_what_is_no_tensor_is_left_out(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"model": {"module.a.weight": TENSORS["a.weight"], "epoch": 3}}, path)
    assert list(read_tensors(path)) == ["a.weight"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3}, "it holds no tensors by name"),
        ({}, "it holds no tensors by name"),
        ([1, 2], "it holds a list, not named tensors"),
    ],
    ids=str,
)
def test_files_without_named_tensors_are_refused(tmp_path, content, message):
    path = tmp_path / "a.pt"
    torch.save(content, path)
    with pytest.raises(TensorFileError, match=message):
        read_tensors(path)
