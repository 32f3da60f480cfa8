"""What core's Save Video makes of the results of Stream Video, by its own code."""

import clips
import numpy as np
import pytest
from comfy_api.latest import InputImpl, Types

from live2diff_core.video.encoder import Encoding
from live2diff_core.video.reader import open_video
from live2diff_core.video.segments import assemble
from live2diff_core.video.sound import container_for
from live2diff_core.video.writer import SegmentWriter

LOSSLESS = Encoding(codec="lossless", preset="ultrafast")


def result_of(source, folder):
    """What Stream Video would give for `source`, were its translation to change nothing."""
    with open_video(source) as reader:
        info = reader.info
        clock = (info.width, info.height, info.time_base)
        with SegmentWriter(folder, LOSSLESS, *clock, frame_rate=info.frame_rate) as writer:
            for frame in reader:
                writer.write(frame.image, frame.time, frame.duration)
            writer.commit()
    return assemble(writer.segments, folder / f"out{container_for(source)}", audio_from=source)


def frames_of(path):
    with open_video(path) as reader:
        return [(frame.time, frame.image) for frame in reader]


@pytest.mark.parametrize("container", ["auto", "mp4"])
@pytest.mark.parametrize(
    ("sound", "suffix", "saved_as"),
    [("aac", ".mp4", "aac"), ("pcm_s16le", ".mov", "pcm_s16le"), ("pcm_u8", ".mp4", "flac")],
)
def test_nothing_is_encoded_again(tmp_path, container, sound, suffix, saved_as):
    source = clips.make_clip(tmp_path, "h264_avi", sounds=[sound], layout="stereo")
    result = result_of(source, tmp_path / "work")
    assert result.suffix == suffix
    saved = tmp_path / f"saved.{Types.VideoContainer.get_extension(container)}"
    InputImpl.VideoFromFile(str(result)).save_to(
        str(saved), format=Types.VideoContainer(container), codec=Types.VideoCodec.AUTO
    )
    for (time, image), (other_time, other) in zip(frames_of(result), frames_of(saved), strict=True):
        assert time == other_time and np.array_equal(image, other)
    packets = [b"".join(data for _, data in clips.sound_of(path)) for path in (result, saved)]
    assert packets[0] == packets[1]
    with open_video(saved) as reader:
        assert reader.info.audio_codecs == (saved_as,)


@pytest.mark.parametrize("sound", ["pcm_s16le", "pcm_u8"])
def test_sound_reaches_get_video_components(tmp_path, sound):
    source = clips.make_clip(tmp_path, "h264_avi", sounds=[sound], layout="stereo")
    result = result_of(source, tmp_path / "work")
    before, after = (
        InputImpl.VideoFromFile(str(path)).get_components().audio for path in (source, result)
    )
    assert before["sample_rate"] == after["sample_rate"]
    assert before["waveform"].shape == after["waveform"].shape
    assert before["waveform"].abs().max() > 0.1
    assert (before["waveform"] - after["waveform"]).abs().max() < 1e-4
