"""Override of django-rq's command: the service's own worker, for one queue, in JSON."""

from typing import Any, cast

import redis
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django_rq.workers import get_worker

from deliveries import queue
from deliveries.worker import Worker, run_worker


class Command(BaseCommand):
    help = "Run a worker: on 'deliveries' it delivers what is due, on 'maintenance' it purges."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("queue", choices=(queue.DELIVERIES, queue.MAINTENANCE))
        parser.add_argument("--burst", action="store_true", help="End when the queue is empty.")

    def handle(self, *args: Any, **options: Any) -> None:
        # One queue per worker: RQ's way of taking a job from several can lose it in a crash.
        name = options["queue"]

        def make_worker() -> Worker:
            worker = get_worker(
                name,
                worker_class="deliveries.worker.Worker",
                job_class="deliveries.worker.TakenJob",
                serializer="rq.serializers.JSONSerializer",
            )
            return cast(Worker, worker)

        try:
            run_worker(name, make_worker=make_worker, burst=options["burst"])
        except redis.RedisError as error:  # of a burst alone: otherwise a worker outlives it
            raise CommandError(f"Redis does not work: {error}") from None
