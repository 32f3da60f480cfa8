"""Renders a recording again, in this process or as a process of its own: floats, not a video.

As a program: python rendered_again.py RECORDING RESULT WINDOW WARMUP
"""

import sys
from pathlib import Path


def rendered(folder, inputs, as_recorded=True, size=None):
    """All pictures of a recording through `RecordedStream`: [F, H, W, 3] in 0..1."""
    import torch
    from host_stream import core

    reader_of = core("video.reader").open_video
    loaded = core("live.loaded_recording").LoadedRecording.read(Path(folder), as_recorded)
    with reader_of(str(loaded.video)) as reader:
        images = [frame.image for frame in reader]
    size = size or (images[0].shape[1], images[0].shape[0])
    spec = core("live.replay").RecordedSpec(inputs, loaded, size)
    stream, done = spec.start_translator(), []
    with torch.inference_mode(), spec.open((size[1] // 8, size[0] // 8), None) as opened:
        stream.open(opened)
        for image in images:
            done += stream.push(opened, torch.from_numpy(image))
        done += list(stream.drain(opened))
        return torch.stack([picture.get() for picture in done])


def main():
    """Build the tests' models in a fresh process, and render."""
    folder, result, window, warmup = sys.argv[1:]
    here = Path(__file__).resolve().parent
    sys.path += [str(here), str(here.parent.parent), str(here.parent / "host")]
    import conftest as host

    host.load_pack()
    from host_stream import core, patched
    from live_script import live_inputs
    from live_stream_inputs import TinyVAE
    from safetensors.torch import save_file

    from devtools import golden

    golden.load_engine(f"{host.ALIAS}.live2diff_core")
    data = here.parent / "data" / "live2diff"
    motion = core("live2diff.patch").load_motion_module(str(data / "live2diff.ckpt"))
    model = patched(golden.build_sd15(data / "unet.safetensors"), motion, int(window), int(warmup))
    save_file({"pictures": rendered(folder, live_inputs(model, TinyVAE()))}, result)


if __name__ == "__main__":
    main()
