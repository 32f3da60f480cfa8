"""Strange videos through one real server: all frames that decode, or a sentence with the file."""

import re

import pytest
from comfy_servers import standin_server
from strange_videos import STRANGE, MissingEncoderError, frames_that_decode
from video_graphs import CHECKPOINT, decode, node, partial_root, stream_graph

from folder_queue.errors import PromptError

pytestmark = [pytest.mark.server, pytest.mark.hostile]

# What Python says where nobody thought of a case.
UNTHOUGHT = re.compile(
    r"Traceback|(Index|Key|Type|Attribute|Unicode\w*|Assertion|ZeroDivision|Overflow)Error|"
    r"not enough values|too many values|out of range|NoneType|has no attribute|unsupported operand|"
    r"division by zero|not subscriptable|codec can't|unexpected keyword"
)
# These are refused however much of them decodes: they are no videos.
NO_VIDEOS = {"text.txt", "text.mp4", "list.mp4", "concat.mp4", "list.m3u8", "session.sdp"}
# These decode, but are smaller than a latent pixel.
TOO_SMALL = {"1x1", "2x2", "1 high", "1 wide", "odd gif"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with standin_server(tmp_path_factory.mktemp("server")) as started:
        yield started


def graph(name):
    made = stream_graph(node("LoadVideo", file=name), model=["checkpoint", 0], steps=1, denoise=1.0)
    assert made["checkpoint"]["inputs"]["ckpt_name"] == CHECKPOINT
    return {key: value for key, value in made.items() if key not in ("motion", "apply")}


def blocked(server):
    """Folders of partial results without a result."""
    folders = [path for path in partial_root(server).glob("*") if path.is_dir()]
    return [path for path in folders if not list(path.glob("result.*"))]


@pytest.mark.parametrize("title", STRANGE)
def test_frames_or_a_sentence(server, title):
    try:
        path = STRANGE[title](server.base / "input")
    except MissingEncoderError as error:
        pytest.skip(f"no encoder: {error}")
    is_file = path.is_file()
    expected = frames_that_decode(path) if is_file and title not in NO_VIDEOS | TOO_SMALL else 0
    try:
        (found,) = server.client.run(graph(path.name)).files("save")
    except PromptError as error:
        assert not expected, error
        assert path.name in str(error) and not UNTHOUGHT.search(str(error)), error
        assert len(str(error)) < 600
    else:
        assert len(decode(found)[1]) == expected
    assert not blocked(server)
    assert server.client.get("/system_stats")
