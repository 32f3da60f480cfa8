"""How often a video is tried on a server that is lost, or silent, again and again."""

from types import SimpleNamespace

import pytest

from folder_queue import translate
from folder_queue.errors import ConnectionLostError, PromptError, SilentError


@pytest.fixture
def outlast(monkeypatch):
    """Try against what the attempts raise, each after its seconds: (the reason, tries made)."""
    now = [0.0]
    monkeypatch.setattr(translate, "monotonic", lambda: now[0])
    client = SimpleNamespace(sleep=lambda seconds: None, wait_until_up=lambda patience: None)

    def run(*attempts):
        left = list(attempts)

        def attempt():
            seconds, error = left.pop(0)
            now[0] += seconds
            if error is not None:
                raise error("played")
            return "done"

        try:
            said = translate.outlast(client, attempt, 1.0)
        except PromptError as error:
            said = str(error)
        return said, len(attempts) - len(left)

    return run


def test_silence_twice_in_a_row_is_enough(outlast):
    """A server that is there and does not answer would cost a minute every time."""
    assert outlast(*[(60, SilentError)] * 5) == ("given up after 2 lost connections: played", 2)


def test_other_losses_are_tried_five_times(outlast):
    assert outlast(*[(60, ConnectionLostError)] * 9) == (
        "given up after 5 lost connections: played",
        5,
    )


@pytest.mark.parametrize(
    "between",
    [(1, ConnectionLostError), (7200, SilentError)],
    ids=["a loss", "hours of translation"],
)
def test_silence_now_and_then_costs_no_video(outlast, between):
    attempts = [(60, SilentError), between, (60, SilentError), (1, None)]
    assert outlast(*attempts) == ("done", 4)
