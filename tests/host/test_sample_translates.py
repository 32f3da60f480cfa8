"""The sample model translates, and does not copy: clips that it has not seen, in every style."""

from importlib import import_module

import numpy as np
import pytest
import skimage.data

from training.sample_model.scenes import Plane, Scene


def pan(name, top, left):
    """Ten pictures of a pan over a photograph that was in no training set, [160, 160, 3]."""
    whole = getattr(skimage.data, name)()[top : top + 300, left : left + 300]
    whole = whole.astype(np.float32) / 255
    texture = np.dstack([whole, np.ones(whole.shape[:2], np.float32)])
    scene = Scene((Plane(texture, 1.4, (1.0, 0.0, 0.0)),), camera=(0.02, 0.01, 0.01))
    return [frame.picture for frame in scene.frames(10, 160)]


@pytest.mark.thorough
def test_outputs_are_nearest_to_their_own_style_and_keep_their_structure():
    judging = import_module("training.sample_model.judging")
    judgement = judging.judge(
        [pan("astronaut", 0, 60), pan("astronaut", 200, 150), pan("immunohistochemistry", 0, 100)]
    )
    assert judgement.translated() >= 0.8
    assert np.mean([each.structure > each.another for each in judgement.outputs]) >= 0.8
