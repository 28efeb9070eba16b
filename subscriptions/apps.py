from django.apps import AppConfig
from django.contrib.admin import apps as admin


class SubscriptionsConfig(AppConfig):
    default = True
    name = "subscriptions"

    def ready(self) -> None:
        from subscriptions import checks, openapi  # noqa: F401 - importing registers what is in them


class ConsoleConfig(admin.AdminConfig):
    """Django's admin, as subscriptions/console.py has it."""

    default = False
    default_site = "subscriptions.console.Console"

    def ready(self) -> None:
        super().ready()
        from subscriptions import audit_admin, people_admin  # noqa: F401 - importing registers its page

        people_admin.replace_what_libraries_registered()
