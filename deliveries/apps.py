from django.apps import AppConfig
from django.db.models.signals import post_migrate


class DeliveriesConfig(AppConfig):
    name = "deliveries"

    def ready(self) -> None:
        from deliveries import checks, roles  # noqa: F401 - importing registers the checks

        # The framework's own hook for what depends on all migrations.
        post_migrate.connect(roles.make_roles, sender=self)
