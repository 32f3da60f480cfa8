"""Streams of one name that are started over with settings that it has had before."""

from live2diff_core.run.starts_over import StartsOver

A, B, C = (({"seed": seed}, "") for seed in (1, 2, 3))


def after(*settings):
    """The value after a stream had these settings, one after the other."""
    starts = StartsOver()
    for before, now in zip(settings, settings[1:], strict=False):
        starts = starts.then(before, now)
    return starts


def test_settings_that_come_back_are_counted():
    assert [after(*"ABABA"[:n]).returns for n in range(1, 6)] == [0, 0, 1, 2, 3]
    assert after(A, B, C, A, B, C).returns == 3


def test_new_settings_every_time_are_no_return():
    many = [({"seed": seed}, "") for seed in range(50)]
    starts = after(*many)
    assert starts.returns == 0 and len(starts.earlier) < 10


def test_the_same_identity_with_another_prompt_is_another():
    first, second = (({"seed": 1}, prompt) for prompt in ("one", "two"))
    assert after(first, second).returns == 0
    assert after(first, second, first).returns == 1


def test_the_warning_names_what_differs_and_what_to_do():
    warning = after(A, B, A, B).warning("live", "seed 1 -> 2")
    assert "'live'" in warning and "2 times" in warning and "seed 1 -> 2" in warning
    assert "different stream names" in warning
    assert "once so far" in after(A, B, A).warning("live", "seed 2 -> 1")
