"""A real browser for the tests of pages; without one they are left out, see tests/needs.py."""

from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.db import connections
from playwright.sync_api import ConsoleMessage, Dialog, Page, expect, sync_playwright

from tests.needs import find_browser

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
STEP_MS = 30_000
PASSWORD = "a password of the tests"

# A busy machine may draw a page of documentation in more than the 5 seconds of Playwright.
expect.set_options(timeout=STEP_MS)


@pytest.fixture
def trouble() -> list[str]:
    """What no page may cause; a test that means to cause some takes it out again."""
    return []


@pytest.fixture
def page(live_server: object, monkeypatch: pytest.MonkeyPatch, trouble: list[str]) -> Iterator[Page]:
    """A page of a fresh browser; the test fails if a dialog opens or the console has an error."""
    # Playwright's loop runs in this thread, where Django would refuse to use the database.
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")

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
