"""The pages of the people who may log in: an older page gives nothing back, a found session takes nothing over."""

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import reverse

from subscriptions.audit import AuditEntry
from tests.staff import seen

pytestmark = pytest.mark.django_db


@pytest.fixture
def grace() -> User:
    grace = User.objects.create_user("grace", is_staff=True)
    grace.groups.set(Group.objects.filter(name="Operator"))
    return grace


def page_of(user: User) -> str:
    return reverse("admin:auth_user_change", args=[user.pk])


def test_it_gives_nobody_back_what_was_taken_away_since_the_page_was_opened(operator, grace):
    groups = [str(group.pk) for group in grace.groups.all()]
    form_as_opened = {"username": "grace", "is_active": "on", "is_staff": "on", "groups": groups} | seen(grace)
    for take_away in (grace.groups.clear, lambda: User.objects.filter(pk=grace.pk).update(is_staff=False)):
        take_away()
        answer = operator.post(page_of(grace), form_as_opened | {"email": "grace@example.com"})
        assert "this was changed since the page was opened" in answer.content.decode()
    grace.refresh_from_db()
    assert (grace.is_staff, grace.groups.count(), grace.email) == (False, 0, "")


def test_its_page_carries_what_its_form_needs(operator, grace):
    page = operator.get(page_of(grace))
    assert f'name="seen" value="{seen(grace)["seen"]}"' in page.content.decode()
    fields = {"username": "grace", "is_active": "on", "email": "grace@example.com"}
    assert operator.post(page_of(grace), fields | seen(grace)).status_code == 302
    grace.refresh_from_db()
    assert (grace.is_staff, grace.email) == (False, "grace@example.com")


def test_a_login_of_somebody_makes_no_page_of_theirs_old(operator, grace):
    form_as_opened = {"username": "grace", "is_active": "on"} | seen(grace)
    Client().force_login(grace)
    assert operator.post(page_of(grace), form_as_opened).status_code == 302


@pytest.mark.parametrize("id_of", ["{}", "0{}", "+{}", " {}"])
def test_nobody_sets_the_own_password_without_the_old_one(operator, id_of):
    own = User.objects.get(username="operator")
    passwords = {"password1": "a password of a thief", "password2": "a password of a thief"}
    path = f"/admin/auth/user/{id_of.format(own.pk)}/password/"
    for answer in (operator.get(path), operator.post(path, passwords | {"usable_password": "true"})):
        assert (answer.status_code, answer["Location"]) == (302, "/admin/password_change/")
    assert User.objects.get(pk=own.pk).password == own.password
    assert not AuditEntry.objects.filter(action="change").exists()
