"""Warnings of a run: kept for the node, logged once."""

import logging

from live2diff_core.run.notices import Notices


def test_warnings_are_kept_in_order_and_logged(caplog):
    notices = Notices()
    notices.warn("first")
    notices.warn("second")
    assert notices.text == "Warning: first\nWarning: second"
    assert caplog.messages == ["Live2Diff: first", "Live2Diff: second"]
    assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_a_count_that_grows_is_one_line_and_logged_once(caplog):
    notices = Notices()
    for count in (1, 2, 3):
        notices.warn(f"{count} frames", key="frames")
    assert notices.text == "Warning: 3 frames"
    assert caplog.messages == ["Live2Diff: 1 frames"]


def test_a_node_shows_only_some_of_many():
    notices = Notices()
    for index in range(20):
        notices.warn(f"number {index}")
    assert notices.text.splitlines()[-1] == "Warning: 12 more warnings are in the log."


def test_without_warnings_there_is_no_text():
    assert Notices().text == ""


def test_a_warning_that_is_logged_elsewhere_is_kept_only(caplog):
    notices = Notices()
    assert notices.keep("1 packet", key="packets") and not notices.keep("2 packets", key="packets")
    assert notices.text == "Warning: 2 packets" and not caplog.messages


def test_warnings_stand_below_the_text_of_the_node():
    notices = Notices()
    assert notices.below("Frame 3 of 9") == "Frame 3 of 9"
    notices.warn("first")
    assert notices.below("Frame 3 of 9") == "Frame 3 of 9\nWarning: first"
    assert notices.below("") == "Warning: first"
