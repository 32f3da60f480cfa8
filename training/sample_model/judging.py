"""Whether the sample model translates: held-out clips, judged by a low-level statistic.

Each clip is translated into every style. An output counts as translated if its signature is nearer
to the reference of its own style than to the input and to the references of the other styles. Its
structure is compared with that of its own input and of another clip's.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import comfy.cli_args
import numpy as np
import torch
from torch import Tensor

comfy.cli_args.args.cpu = True

from live2diff_core.live2diff.patch import apply_live2diff, load_motion_module  # noqa: E402
from live2diff_core.live2diff.window import AttentionWindow  # noqa: E402
from live2diff_core.run.spec import StreamSpec  # noqa: E402
from live2diff_core.sample_model.loading import (  # noqa: E402
    SampleModel,
    load_sample_model,
    motion_module_path,
)

from .clips import FIRST_HELD_OUT, scene  # noqa: E402
from .pictures import photographs  # noqa: E402
from .prompts import WORDS  # noqa: E402
from .scene_maker import SceneMaker  # noqa: E402
from .signature import clip_signature, nearest, spread, structure  # noqa: E402
from .styles import STYLES  # noqa: E402

INPUT = "photograph"
TARGETS = tuple(name for name in STYLES if name != INPUT)
SIDE, FRAMES, CLIPS = 256, 10, 40


def translated(
    sample: SampleModel, model: Any, prompt: str, pictures: Iterable[np.ndarray], depth: bool
) -> Iterator[np.ndarray]:
    """Stream pictures [H, W, 3] in 0..1 as Stream Video does, with 2 steps, and yield as many."""

    def encoded(text: str) -> Any:
        return sample.clip.encode_from_tokens_scheduled(sample.clip.tokenize(text))

    spec = StreamSpec.from_inputs(
        *(model, encoded(prompt), encoded("")),
        **{"seed": 0, "steps": 4, "denoise": 0.5, "cfg": 1.0, "vae": sample.vae},
        depth_model=sample.depth_model if depth else None,
    )
    given = [torch.from_numpy(np.rint(picture * 255).astype(np.uint8)) for picture in pictures]
    translator = spec.start_translator(eight_bit=True)
    height, width = given[0].shape[:2]
    with spec.open((height // 8, width // 8), len(given)) as opened:
        translator.open(opened)
        for picture in given:
            yield from map(_picture, translator.push(opened, picture))
        yield from map(_picture, translator.drain(opened))


def _picture(copy: Any) -> np.ndarray:
    shown: Tensor = copy.get()
    return shown.cpu().numpy().astype(np.float32) / 255


def with_memory(sample: SampleModel) -> tuple[Any, bool]:
    """Return the MODEL with the motion module if there is one, and whether it reads depth."""
    path = motion_module_path()
    if path is None:
        return sample.model, False
    motion = load_motion_module(str(path))
    return apply_live2diff(sample.model, motion, AttentionWindow()), True


@torch.no_grad()
def judge(clips: int = CLIPS, styles: Sequence[str] = TARGETS) -> dict[str, Any]:
    """Translate held-out clips into `styles`, and return what share was translated.

    Returns:
        `translated` and `structure_kept`, shares of all outputs; `by_style`; and the mean
        `structure` with the own input and with `another` clip's.
    """
    sample, maker = load_sample_model(), SceneMaker(list(photographs()))
    model, depth = with_memory(sample)
    inputs = [
        [frame.picture for frame in scene(maker, FIRST_HELD_OUT + n).frames(FRAMES, SIDE)]
        for n in range(clips)
    ]
    references = [
        {name: clip_signature(map(draw, frames)) for name, draw in STYLES.items()}
        for frames in inputs
    ]
    unit = spread([found for each in references for found in each.values()])
    rows = []
    for n, frames in enumerate(inputs):
        for style in styles:
            output = list(translated(sample, model, WORDS[style][0], frames, depth))
            last = output[-1]
            rows.append(
                {
                    "clip": n,
                    "style": style,
                    "nearest": nearest(clip_signature(output), references[n], unit),
                    "structure": structure(last, frames[-1]),
                    "another": structure(last, inputs[(n + 1) % clips][-1]),
                }
            )
            logging.info("%s", rows[-1])
    return _summary(rows)


def _summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    def share(found: Iterable[bool]) -> float:
        return float(np.mean(list(found)))

    return {
        "outputs": len(rows),
        "translated": share(row["nearest"] == row["style"] for row in rows),
        "by_style": {
            style: share(r["nearest"] == style for r in rows if r["style"] == style)
            for style in dict.fromkeys(row["style"] for row in rows)
        },
        "structure_kept": share(row["structure"] > row["another"] + 0.2 for row in rows),
        "structure": share(row["structure"] for row in rows),
        "another": share(row["another"] for row in rows),
    }


def main() -> int:
    """Judge the sample model, and write the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("json", type=Path, help="file for the result")
    parser.add_argument("--clips", type=int, default=CLIPS)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    found = judge(options.clips)
    options.json.write_text(json.dumps(found, indent=2) + "\n")
    logging.info("%s", json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
