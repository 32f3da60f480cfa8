"""Where the browser for the tests of the page comes from, with no command really run."""

import os
from pathlib import Path

import pytest

from devtools import browser
from devtools.console import ToolError


class Machine:
    """What commands find and do: `answers` maps a command's last word to a function or a text."""

    def __init__(self, folder):
        self.folder, self.commands, self.programs, self.answers = folder, [], {}, {}

    def which(self, name):
        return self.programs.get(name)

    def output(self, command):
        self.commands.append(" ".join(command))
        answer = self.answers.get(command[-1])
        return answer() if callable(answer) else answer

    def file(self, name):
        path = self.folder / name
        path.touch()
        return str(path)

    def install(self):
        self.programs["chromium"] = self.file("chromium")
        return ""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine without a browser, whose user is not root and has no sudo."""
    made = Machine(tmp_path)
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setenv("LIVE2DIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(browser.shutil, "which", made.which)
    monkeypatch.setattr(browser, "_output", made.output)
    monkeypatch.setattr(browser, "tools_python", lambda: Path("python"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000, raising=False)
    return made


def test_a_browser_that_is_there_is_taken(machine, monkeypatch):
    machine.programs["google-chrome"] = machine.file("chrome")
    assert browser.ensure_browser() == machine.folder / "chrome"
    monkeypatch.setenv("CHROMIUM", machine.file("mine"))
    assert browser.ensure_browser() == machine.folder / "mine"
    assert not machine.commands


def test_a_wrong_variable_is_one_line(machine, monkeypatch):
    monkeypatch.setenv("CHROMIUM", str(machine.folder / "gone"))
    with pytest.raises(ToolError, match="CHROMIUM=.*gone is not a file"):
        browser.ensure_browser()


def download(machine):
    """Playwright's download can be had."""
    place = str(machine.folder / "downloaded")
    machine.answers |= {browser.WHERE: place, "--version": "Chromium 1"}
    machine.answers["chromium"] = lambda: machine.file("downloaded")
    return Path(place)


def test_playwrights_download_comes_first(machine):
    place = download(machine)
    machine.programs["apt-get"] = "apt-get"
    assert browser.ensure_browser() == place
    again = len(machine.commands)
    assert browser.ensure_browser() == place
    assert sum("playwright install " in command for command in machine.commands) == 1
    assert not any("apt-get" in command for command in machine.commands[again:])


def test_a_download_that_lacks_libraries_gets_them(machine):
    place = download(machine)
    versions = iter([None, "Chromium 1"])
    machine.answers |= {"--version": lambda: next(versions), "true": ""}
    assert browser.ensure_browser() == place
    assert "python -m playwright install-deps chromium" in machine.commands


@pytest.mark.parametrize("root", [True, False])
def test_else_the_package_manager_installs_one(machine, monkeypatch, root):
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    machine.programs["apt-get"] = "apt-get"
    machine.answers |= {"true": "", "update": "", "--version": "Chromium 1"}
    machine.answers["chromium"] = lambda: (
        machine.install() if "apt-get" in machine.commands[-1] else None
    )
    assert browser.ensure_browser() == machine.folder / "chromium"
    before = "" if root else "sudo -n "
    apt = [command for command in machine.commands if "apt-get" in command]
    assert [command.removeprefix(before) for command in apt] == [
        "apt-get update",
        "apt-get install --yes --no-install-recommends chromium",
    ]
    assert all(command.startswith(before) for command in apt)


@pytest.mark.parametrize("managers", [{}, {"apt-get": "apt-get"}])
def test_no_way_out_says_what_to_install(machine, managers, capsys):
    machine.programs |= managers
    with pytest.raises(ToolError, match="install Chromium or Google Chrome, or set CHROMIUM") as no:
        browser.ensure_browser()
    assert "\n" not in str(no.value)
    assert not any("apt-get" in command for command in machine.commands)
    assert "Installing" not in capsys.readouterr().out


def test_a_package_that_does_not_run_is_none(machine, monkeypatch):
    """As Ubuntu's, which needs another package system."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    machine.programs["apt-get"] = "apt-get"
    machine.answers["chromium"] = machine.install
    with pytest.raises(ToolError, match="set CHROMIUM to its path"):
        browser.ensure_browser()
