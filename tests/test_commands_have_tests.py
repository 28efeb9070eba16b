from pathlib import Path

from django.core.management import get_commands

APPS = ("subscriptions", "deliveries")
TESTS = Path(__file__).parent


def test_it_has_a_test_module_for_every_command():
    commands = {name for name, app in get_commands().items() if app in APPS}
    tested = {path.name for path in TESTS.rglob("test_*_command.py")}
    assert {f"test_{name}_command.py" for name in commands} - tested == set()
    assert {"create_api_key", "purge", "replay", "rqscheduler", "rqworker", "webhook_receiver"} <= commands
