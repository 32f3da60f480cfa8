"""Tokens, frame headers and rates of the live page."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from live_page.frame_header import JPEG, SIZE, FrameHeader, read_header
from live_page.limits import Allowance
from live_page.tokens import is_page_token, is_watch_token, page_token, watch_token


def test_a_page_token_opens_the_page_and_nothing_else():
    token = page_token()
    assert is_page_token(token) and token != page_token()
    assert not is_watch_token(token, "live")
    assert not is_page_token(watch_token("live"))


def test_a_read_only_token_is_that_of_one_stream():
    assert is_watch_token(watch_token("live"), "live")
    assert not is_watch_token(watch_token("live"), "other")
    assert not is_watch_token("", "live")


@given(st.one_of(st.none(), st.integers(), st.text(), st.lists(st.text())))
def test_nothing_else_is_a_token(value):
    assert not is_page_token(value)


def test_a_changed_token_is_none():
    token = page_token()
    for place in range(len(token)):
        other = "0" if token[place] != "0" else "1"
        assert not is_page_token(token[:place] + other + token[place + 1 :])


def test_a_header_comes_back():
    header = FrameHeader(JPEG, 5, 2**32 - 1, 12345.678, -1, 9, 1.5, 0.25)
    assert len(header.pack()) == SIZE == 32
    assert read_header(header.pack() + b"x") == header


@given(st.binary(max_size=80))
def test_bytes_that_are_no_frame_are_refused_or_read(data):
    try:
        header = read_header(data)
    except ValueError as error:
        assert str(error)
    else:
        assert header.kind in (1, 2, 3) and math.isfinite(header.captured)


@pytest.mark.parametrize("change", [{"kind": 9}, {"captured": math.nan}, {"captured": math.inf}])
def test_a_header_with_nonsense_is_refused(change):
    header = FrameHeader(JPEG, 0, 1, 1.0)._replace(**change)
    with pytest.raises(ValueError):
        read_header(header.pack() + b"x")


def test_an_allowance_is_a_rate_with_one_seconds_reserve():
    now = [0.0]
    allow = Allowance(10, lambda: now[0])
    assert [allow() for _ in range(12)] == [True] * 10 + [False] * 2
    now[0] = 0.5
    assert [allow() for _ in range(6)] == [True] * 5 + [False]
    now[0] = 100.0
    assert sum(allow() for _ in range(50)) == 10
