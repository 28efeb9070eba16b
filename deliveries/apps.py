from django.apps import AppConfig, apps
from django.db.models.signals import post_migrate


class DeliveriesConfig(AppConfig):
    name = "deliveries"

    def ready(self) -> None:
        from deliveries import checks, roles  # noqa: F401 - importing registers the checks
        from subscriptions.apps import ConsoleConfig

        # Another project that installs this app has groups of its own, which may be called the same.
        if isinstance(apps.app_configs.get("admin"), ConsoleConfig):
            # The framework's own hook for what depends on all migrations.
            post_migrate.connect(roles.make_roles, sender=self)
