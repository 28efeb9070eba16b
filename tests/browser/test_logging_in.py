import pytest
from django.contrib.auth.models import User
from django_otp.plugins.otp_totp.models import TOTPDevice
from playwright.sync_api import Page, expect

from tests.browser.conftest import PASSWORD
from tests.staff import add_one_time_code, code_of

pytestmark = pytest.mark.browser


def log_in(page: Page, code: str) -> None:
    page.get_by_label("Username").fill("operator")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_label("One-time code").fill(code)
    page.get_by_role("button", name="Log in").click()


def test_an_operator_sets_up_a_one_time_code_and_needs_it_from_then_on(
    operator: Page, live_server: object
) -> None:
    operator.get_by_role("link", name="One-time code").click()
    operator.get_by_label("Password").fill(PASSWORD)
    operator.get_by_role("button", name="Set up").click()
    picture = operator.get_by_role("img", name="QR code of the key")
    assert picture.evaluate("image => image.complete && image.naturalWidth") > 100
    operator.get_by_label("Code").fill(code_of(TOTPDevice.objects.get()))
    operator.get_by_role("button", name="Confirm").click()
    backup_codes = operator.locator("#backup-codes").inner_text().split()
    assert len(backup_codes) == 10

    operator.get_by_role("button", name="Log out").click()
    operator.goto(f"{live_server}/admin/")
    for wrong in ("", "000000"):
        log_in(operator, wrong)
        expect(operator.get_by_text("Please enter the correct username and password")).to_be_visible()
    log_in(operator, backup_codes[0])
    expect(operator.get_by_role("heading", name="Administration", exact=True)).to_be_visible()


def test_a_code_is_good_once(page: Page, live_server: object) -> None:
    user = User.objects.create_superuser("operator", password=PASSWORD)
    code = code_of(add_one_time_code(user))
    page.goto(f"{live_server}/admin/")
    log_in(page, code)
    page.get_by_role("heading", name="Administration", exact=True).wait_for()
    page.get_by_role("button", name="Log out").click()
    page.goto(f"{live_server}/admin/")
    log_in(page, code)
    expect(page.get_by_text("Please enter the correct username and password")).to_be_visible()
