"""manage.py rqscheduler: the clock, as a process of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from django.conf import settings

BASE_DIR = Path(__file__).resolve().parent.parent.parent
WAKE_UPS = "rq:queue:deliveries"


@pytest.mark.processes
def test_it_registers_the_periodic_jobs_and_ticks_until_it_is_told_to_stop():
    with redis.Redis.from_url(settings.REDIS_URL, decode_responses=True) as client:
        clock = subprocess.Popen([sys.executable, "manage.py", "rqscheduler"], cwd=BASE_DIR, env=os.environ)
        try:
            ticks = [client.blpop(WAKE_UPS, timeout=30) for _ in range(2)]
            assert ticks == [(WAKE_UPS, "tick"), (WAKE_UPS, "tick")]
            assert set(client.scan_iter("rq:job:*")) == {
                "rq:job:tick",
                "rq:job:purge",
                "rq:job:cancel-orphans",
                "rq:job:operations",
                "rq:job:warn",
            }
            clock.send_signal(signal.SIGTERM)
            assert clock.wait(30) == 0
        finally:
            clock.kill()
            clock.wait()
