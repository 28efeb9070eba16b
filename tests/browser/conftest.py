"""A real browser for the tests of pages; without one they are left out, and pytest says so."""

import os
import shutil
from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.db import connections
from playwright.sync_api import ConsoleMessage, Dialog, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
STEP_MS = 15_000
PASSWORD = "a password of the tests"

_left_out = pytest.StashKey[list[str]]()


def find_browser() -> str | None:
    """Return the path of the Chromium in $CHROMIUM or on the PATH, or None."""
    given = os.environ.get("CHROMIUM")
    if given is not None:
        return shutil.which(given)
    return next((path for path in map(shutil.which, NAMES) if path is not None), None)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if find_browser() is not None:
        return
    left_out = [item for item in items if item.get_closest_marker("browser") is not None]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
    config.stash[_left_out] = [item.nodeid for item in left_out]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    left_out = config.stash.get(_left_out, [])
    if not left_out:
        return
    terminalreporter.section("left out")
    terminalreporter.line(
        f"{len(left_out)} browser tests were left out for want of a browser: set CHROMIUM to one, "
        f"or put {', '.join(NAMES[:-1])} or {NAMES[-1]} on the PATH."
    )
    for node_id in left_out:
        terminalreporter.line(f"  {node_id}")


@pytest.fixture
def page(live_server: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """A page of a fresh browser; the test fails if a dialog opens or the console has an error."""
    # Playwright's loop runs in this thread, where Django would refuse to use the database.
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    trouble: list[str] = []

    def note_dialog(dialog: Dialog) -> None:
        trouble.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def note_console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            trouble.append(f"console: {message.text} {message.location}")

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=ARGUMENTS)
        page = browser.new_page()
        page.set_default_timeout(STEP_MS)
        page.on("response", lambda r: print(r.status, r.url) if r.status >= 400 else 0)
        page.on("dialog", note_dialog)
        page.on("console", note_console)
        page.on("pageerror", lambda error: trouble.append(f"script: {error}"))
        yield page
        browser.close()
        # While the loop ran, this thread had a connection of its own.
        connections.close_all()
    assert trouble == []


@pytest.fixture
def operator(page: Page, live_server: object) -> Page:
    """The page of an operator who has logged in."""
    User.objects.create_superuser("operator", password=PASSWORD)
    page.goto(f"{live_server}/admin/")
    page.get_by_label("Username").fill("operator")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Administration", exact=True).wait_for()
    return page
