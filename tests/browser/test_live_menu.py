"""The live page's entries in ComfyUI's own page: a command in the menu, and one in the sidebar."""

import pytest

pytestmark = pytest.mark.browser

COMMAND, TAB = "Live2Diff.OpenLivePage", "live2diff.live"


def test_the_command_opens_the_page_in_a_new_tab(comfy_page, page_server):
    page = comfy_page.page
    with page.context.expect_page() as opened:
        page.evaluate("id => app.extensionManager.command.execute(id)", COMMAND)
    assert opened.value.url.split("?")[0] == f"{page_server.url}/live2diff/live"
    opened.value.get_by_text("No stream yet").wait_for(state="visible", timeout=30_000)
    opened.value.close()


def test_the_menu_has_the_command(comfy_page):
    menus = comfy_page.page.evaluate("""() => app.extensions
      .flatMap(extension => extension.menuCommands ?? [])
      .filter(menu => menu.path[0] === "Live2Diff").flatMap(menu => menu.commands)""")
    assert COMMAND in menus


def test_the_sidebar_has_a_link(comfy_page, page_server):
    page = comfy_page.page
    page.click(f".{TAB.replace('.', chr(92) + '.')}-tab-button")
    link = page.locator("a", has_text="Open the live page")
    link.wait_for(state="visible", timeout=30_000)
    assert link.get_attribute("href").endswith("/live2diff/live")
    assert link.get_attribute("target") == "_blank"
