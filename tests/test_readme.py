"""README.md does what it says: its lines are really run."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import global_settings

from tests.documents import blocks, follow, free_ports, newcomers_service, section, with_ports
from tests.service import BASE_DIR

README = (BASE_DIR / "README.md").read_text(encoding="utf-8")

SETTING_SOURCES = ("config/settings.py", "config/up.py", "Procfile")
SETTING = re.compile(
    r"""env\.\w+\("([A-Z_]+)"|Env\(\)\.\w+\("([A-Z_]+)"|environ\.get\("([A-Z_]+)"|\$\{([A-Z_]+):-"""
)
NOT_SETTINGS = {"PATH"}


def settings_read() -> set[str]:
    """Return the name of every setting that the code reads from the environment."""
    texts = [(BASE_DIR / source).read_text() for source in SETTING_SOURCES]
    return {name for text in texts for names in SETTING.findall(text) for name in names if name} - NOT_SETTINGS


def commands() -> set[str]:
    return {path.stem for path in BASE_DIR.glob("*/management/commands/[a-z]*.py")}


@pytest.fixture(scope="module")
def walk() -> Iterator[dict[str, Any]]:
    """Walk through the README: start what it starts, type what it types, and note what came of it."""
    ports = free_ports("8000", "9000", "9001")
    start, *following = [with_ports(lines, ports) for lines in blocks(section(README, "Try it"), "bash")]
    assert start == "make run\n"
    with newcomers_service(ports) as (launch, service):
        yield follow(following, launch, f"http://127.0.0.1:{ports['8000']}") | {"service": service.lines}


@pytest.mark.processes
def test_the_walk_through_delivers(walk):
    first, second = walk["statuses"]
    assert [attempt["error"] for attempt in first["attempts"]] == [None]
    assert [attempt["error"] for attempt in second["attempts"]] == ["http_5xx", None, None]
    assert [attempt["trigger"] for attempt in second["attempts"]] == ["initial", "retry", "replay"]
    assert (first["status"], second["status"]) == ("delivered", "delivered")


@pytest.mark.processes
def test_the_walk_through_shows_signatures_that_are_valid(walk):
    for receiver, calls in zip(walk["receivers"], (1, 3), strict=True):
        judged = [line for line in receiver.wait_for_line("signatures:", count=calls) if "signatures:" in line]
        assert judged == ["  signatures: both valid"] * calls


@pytest.mark.processes
def test_the_walk_through_prints_what_it_says(walk):
    created, _, by_request, by_subscription, _, retried, replayed, purged = walk["answers"][1:]
    assert '"secret": "my-first-secret"' in created
    assert '"status": "delivered"' in by_request
    assert '"success": true' in by_subscription
    assert '"error": "http_5xx"' in retried
    assert replayed == "1 of 1\nReplayed 1 request.\n0 requests would be replayed."
    assert purged == "0 requests would be purged.\n2 requests would be purged."


@pytest.mark.processes
def test_the_service_tells_the_admin_login(walk):
    assert [line for line in walk["service"] if re.fullmatch(r"admin login: http://\S+/admin/ admin \S{16}", line)]


def test_the_settings_are_found_in_the_code():
    assert {"PORT", "HOST", "WEB_THREADS", "WORKER_PROCESSES", "DATA_DIR", "DATABASE_URL"} <= settings_read()


def test_the_readme_names_every_setting():
    named = set(re.findall(r"^\| `([A-Z_]+)` \|", section(README, "Configuration"), re.MULTILINE))
    assert named == settings_read()


def test_the_example_of_dotenv_names_every_setting():
    example = (BASE_DIR / ".env.example").read_text(encoding="utf-8")
    assert set(re.findall(r"^#([A-Z_]+)=", example, re.MULTILINE)) == settings_read()


def test_the_readme_names_every_command():
    named = set(re.findall(r"^\| `([a-z_]+)` \|", section(README, "Commands"), re.MULTILINE))
    assert commands() <= named


def test_the_links_lead_somewhere():
    for page in (BASE_DIR / "README.md", *(BASE_DIR / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), (page.name, target)


def test_the_guide_for_other_django_projects_has_every_setting_that_the_apps_read():
    of_the_console = {"LOGIN_LOCKOUT_MINUTES", "REQUIRE_OTP"}
    read = {
        name
        for app in ("subscriptions", "deliveries")
        for module in (BASE_DIR / app).rglob("*.py")
        for name in re.findall(r"\bsettings\.([A-Z_]+)", module.read_text(encoding="utf-8"))
    }
    guide = (BASE_DIR / "docs/django.md").read_text(encoding="utf-8")
    given = set(re.findall(r"^([A-Z_]+) = ", guide, re.MULTILINE))
    assert {name for name in read if not hasattr(global_settings, name)} - of_the_console - given == set()
