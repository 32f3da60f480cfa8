"""A pickle of any classes becomes a safetensors, and none of its code runs."""

import pickle
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from live2diff_core.host.tensor_file import TensorFileError, read_tensors
from live2diff_core.streamingt2v.convert import ConvertError, convert, main

ROOT = Path(__file__).resolve().parents[2]


class Callback:
    """A class of a training framework."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        # What runs when it is unpickled in the ordinary way.
        return Path.touch, (self.path,)


def lightning(path, touched, **options):
    weights = OrderedDict(a=torch.rand(3, 4), n=torch.tensor(7))
    content = {"state_dict": weights, "callbacks": [Callback(touched)], "epoch": 3}
    torch.save(content, str(path), pickle_module=pickle, **options)
    return weights


@pytest.mark.parametrize("zipped", [True, False])
def test_only_the_tensors_of_a_pickle_are_taken(tmp_path, zipped):
    path, touched = tmp_path / "a.ckpt", tmp_path / "touched"
    weights = lightning(path, touched, _use_new_zipfile_serialization=zipped)
    with pytest.raises(TensorFileError, match="code"):
        read_tensors(path)
    output = tmp_path / "a.safetensors"
    assert convert(path, output) == 2
    assert not touched.exists()
    found = load_file(str(output))
    assert found["a"].dtype == torch.float16
    assert torch.equal(found["a"], weights["a"].half())
    assert found["n"].item() == 7


def test_numbers_may_stay_as_they_are(tmp_path):
    weights = lightning(tmp_path / "a.ckpt", tmp_path / "touched")
    assert main([str(tmp_path / "a.ckpt"), str(tmp_path / "b.safetensors"), "--float32"]) == 0
    assert torch.equal(load_file(str(tmp_path / "b.safetensors"))["a"], weights["a"])


def test_nothing_is_overwritten_and_nonsense_is_refused(tmp_path, capsys):
    lightning(tmp_path / "a.ckpt", tmp_path / "touched")
    (tmp_path / "a.safetensors").write_bytes(b"mine")
    assert main([str(tmp_path / "a.ckpt")]) == 1
    assert "there already" in capsys.readouterr().err
    assert (tmp_path / "a.safetensors").read_bytes() == b"mine"
    (tmp_path / "bad.ckpt").write_bytes(b"no pickle")
    with pytest.raises(ConvertError, match="cannot be read"):
        convert(tmp_path / "bad.ckpt", tmp_path / "bad.safetensors")
    torch.save([1, 2], str(tmp_path / "list.ckpt"))
    with pytest.raises(ConvertError, match="no tensors"):
        convert(tmp_path / "list.ckpt", tmp_path / "list.safetensors")


def test_the_command_runs_from_anywhere(tmp_path):
    command = [sys.executable, str(ROOT / "convert_streamingt2v.py"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--float32" in done.stdout
