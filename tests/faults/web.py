"""The service's WSGI application, with crash points in it."""

import os
from pathlib import Path

from config.wsgi import application
from tests.faults import crash_points

crash_points.install(Path(os.environ["FAULTS_FOLDER"]))

__all__ = ["application"]
