"""One site for all fault tests, and how much and with which seed each scenario is run."""

import os
from collections.abc import Iterator

import pytest

from tests.faults.site import Site, running_site


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("faults")) as made:
        yield made


@pytest.fixture
def size() -> int:
    """How often a scenario does what it does."""
    return int(os.environ.get("FAULTS_SIZE", "1"))


@pytest.fixture
def seed() -> int:
    return int(os.environ.get("FAULTS_SEED", "2"))
