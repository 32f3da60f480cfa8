"""Renders a recording again, in this process or as a process of its own: floats, not a video.

As a program: python rendered_again.py RECORDING RESULT WINDOW WARMUP
"""

import sys
from pathlib import Path


def rendered(folder, inputs, as_recorded=True, size=None, stop=None, recording=None):
    """All pictures of a recording through `RecordedStream`: [F, H, W, 3] in 0..1.

    `size` scales the frames; before the frame `stop` the state goes to another stream.
    """
    import torch
    from host_stream import core

    reader_of, planned = core("video.reader").open_video, core("video.frame_size").plan_frame_size
    loaded = recording or core("live.loaded_recording").LoadedRecording.read(
        Path(folder), as_recorded
    )
    with reader_of(str(loaded.video)) as reader:
        images = [frame.image for frame in reader]
    own = (images[0].shape[1], images[0].shape[0])
    plan = planned(*own, "fill", *(size or own))
    spec = core("live.replay").RecordedSpec(inputs, loaded, plan.size)
    stream, done = spec.start_translator(), []
    latent = (plan.size[1] // 8, plan.size[0] // 8)
    with torch.inference_mode(), spec.open(latent, None) as opened:
        stream.open(opened)
        for index, image in enumerate(images):
            if index == stop:
                state = {name: tensor.clone() for name, tensor in stream.state_dict().items()}
                stream = spec.start_translator()
                assert stream.count_state(state).frames_in == index
                stream.load_state_dict(state, opened.device)
                stream.open(opened)
            done += stream.push(opened, torch.from_numpy(plan.apply(image)))
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
