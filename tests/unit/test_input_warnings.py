"""The warnings of a video's reader reach the run as they come, kind by kind."""

from fractions import Fraction
from types import SimpleNamespace

from live2diff_core.run.input_warnings import with_warnings
from live2diff_core.run.notices import Notices
from live2diff_core.video.frame import WarningLog


class Reader:
    """Three frames, before each of which `damage` may warn."""

    def __init__(self, *damage):
        self._log = WarningLog("a.mp4")
        self.warnings = self._log.warnings
        self._damage = damage

    def __iter__(self):
        for index, messages in enumerate(self._damage):
            for message in messages:
                self._log.warn(message, index * 10, Fraction(index))
            yield SimpleNamespace(index=index)


def test_a_warning_is_there_with_its_frame(caplog):
    notices, texts = Notices(), []
    for _ in with_warnings(Reader([], ["A packet is cut off"], []), notices):
        texts.append(notices.text)
    assert texts[0] == ""
    assert texts[1] == "Warning: input video: A packet is cut off (at frame 10, 1.000 s)"
    # The reader has logged it already.
    assert len(caplog.messages) == 1


def test_damage_of_one_kind_is_one_line():
    notices = Notices()
    list(with_warnings(Reader(["Damage"], ["Damage"], ["Damage"]), notices))
    assert notices.text == "Warning: input video: Damage (at frame 0, 0.000 s), and 2 more times"


def test_what_comes_after_the_last_frame_is_told():
    class Cut(Reader):
        def __iter__(self):
            yield from super().__iter__()
            self._log.warn("The video ends early", 1)

    notices = Notices()
    list(with_warnings(Cut([]), notices))
    assert "ends early" in notices.text


def test_many_kinds_leave_room_for_other_warnings():
    notices = Notices()
    list(with_warnings(Reader(*([f"{n}.png cannot be read"] for n in range(30))), notices))
    notices.warn("something else")
    lines = notices.text.splitlines()
    assert "26 other kinds" in lines[-2] and lines[-1] == "Warning: something else"
