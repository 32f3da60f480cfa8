"""`dev.py test`: what it asks pytest for, on which hosts, and what it makes of the answers."""

import os
from pathlib import Path

import pytest

import dev
from devtools import commands
from devtools.console import ToolError
from devtools.hosts import Host

USUAL = ["-m", "not (fuzz or thorough or long or marathon or hostile or network)"]


@pytest.fixture
def calls(monkeypatch):
    """Nothing is installed or started; what pytest was asked for, and its statuses by version."""
    made = []
    monkeypatch.setattr(commands, "ensure_host", lambda v: Host(v or "new", Path("h"), Path("p")))
    monkeypatch.setattr(commands, "ensure_browser", lambda: Path("chrome"))

    def run_module(host, module, arguments, more):
        assert module == "pytest"
        made.append((host.version, arguments[2:], more))
        return made.statuses.get(host.version, 0)

    made = type("Calls", (list,), {"statuses": {}})()
    monkeypatch.setattr(commands, "_run_module", run_module)
    return made


def run_test(*arguments):
    options, rest = dev.build_parser().parse_known_args(["test", *arguments])
    return commands.run(options, rest)


def test_the_usual_tests_run_on_all_cores_with_a_browser(calls):
    assert run_test("-k", "word") == 0
    ((version, arguments, more),) = calls
    expected = [*commands.PARALLEL, *USUAL, "-k", "word", *commands.ALL_TESTS]
    assert (version, arguments, more) == ("new", expected, {"CHROMIUM": "chrome"})


def test_named_tests_run_as_they_are(calls):
    run_test("tests/unit/test_config.py::test_one", "-x", "--all")
    run_test("tests/browser/test_workflows.py")
    run_test("tests")
    arguments, more = calls[0][1:]
    assert (arguments, more) == (["tests/unit/test_config.py::test_one", "-x"], {})
    assert [each[2] for each in calls[-2:]] == [{"CHROMIUM": "chrome"}] * 2


def test_parts_are_added_by_name(calls):
    run_test("--also", "fuzz,long,0.20.1", "--host", "0.24.0")
    newest, older = calls
    marks = ["-m", "not (thorough or marathon or hostile or network)"]
    assert newest[:2] == ("0.24.0", [*commands.PARALLEL, *marks, *commands.ALL_TESTS])
    assert older == ("0.20.1", [*commands.PARALLEL, *marks, *commands.HOST_TESTS], {})


def test_all_is_everything_on_every_host(calls):
    run_test("--all")
    assert [version for version, *_ in calls] == ["new", *commands.OLDER_HOSTS]
    (_, newest, _), *older = calls
    assert "-m" not in newest
    # One hostile day is enough: what it attacks does not depend on the host.
    assert all(arguments[-4:-2] == ["-m", "not (hostile)"] for _, arguments, _ in older)


def test_soak_is_everything_and_tells_the_tests(calls, monkeypatch):
    monkeypatch.delenv(commands.SOAK, raising=False)
    run_test("--all")
    assert commands.SOAK not in os.environ
    once = list(calls)
    calls.clear()
    monkeypatch.setenv(commands.SOAK, "")  # so that it is put back
    run_test("--soak")
    assert os.environ[commands.SOAK] == "1" and list(calls) == once


def test_unknown_parts_are_one_line(calls):
    with pytest.raises(ToolError, match="no tests called fast, only fuzz, .*, 0.24.0"):
        run_test("--also", "fast,fuzz")
    assert not calls


def test_a_failure_names_the_hosts_and_the_others_still_run(calls):
    calls.statuses |= {"new": 1, "0.20.1": 1}
    with pytest.raises(ToolError, match="tests failed with ComfyUI new, 0.20.1$"):
        run_test("--all")
    assert len(calls) == 1 + len(commands.OLDER_HOSTS)


def test_no_tests_are_a_failure_but_not_on_an_older_host(calls):
    calls.statuses |= {"0.24.0": commands.NO_TESTS_COLLECTED}
    assert run_test("--also", "0.24.0") == 0
    calls.statuses |= {"new": commands.NO_TESTS_COLLECTED}
    with pytest.raises(ToolError, match="ComfyUI new$"):
        run_test("--also", "0.24.0")


def test_ctrl_c_ends_it(calls):
    calls.statuses |= {"new": commands.INTERRUPTED}
    with pytest.raises(KeyboardInterrupt):
        run_test("--all")
    assert len(calls) == 1


def test_every_part_is_a_mark_with_a_meaning(request):
    marks = {line.split(":")[0] for line in request.config.getini("markers")}
    assert set(commands.MARKS) < marks
