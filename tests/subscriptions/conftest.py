"""Who logs in, where passwords matter."""

import pytest
from django.contrib.auth.models import User
from pytest_django.fixtures import Settings

from tests.staff import PASSWORD


@pytest.fixture
def quick_hashes(settings: Settings) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def user(db: None) -> User:
    return User.objects.create_superuser("ada", password=PASSWORD)
