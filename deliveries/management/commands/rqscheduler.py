"""Override of django-rq's command: the clock, with the service's periodic jobs registered."""

from typing import Any

from django.core.management.base import BaseCommand

from deliveries import scheduler


class Command(BaseCommand):
    help = "Run the clock, which wakes a worker every TICK_SECONDS and purges every day."

    def handle(self, *args: Any, **options: Any) -> None:
        scheduler.run_scheduler()
