import io

import pytest
from django.core.management import call_command


@pytest.mark.django_db
def test_it_has_a_migration_for_every_change_of_a_model():
    output = io.StringIO()
    call_command("makemigrations", "--check", "--dry-run", stdout=output, stderr=output)
    assert output.getvalue() == "No changes detected\n"


@pytest.mark.django_db
def test_it_has_migrated_the_database_of_the_tests_with_them():
    output = io.StringIO()
    call_command("migrate", "--check", stdout=output, stderr=output)
    assert output.getvalue() == ""
