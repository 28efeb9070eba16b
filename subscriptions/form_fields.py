"""Fields of the console's forms."""

from collections.abc import Mapping
from typing import Any

from django import forms
from django.db import models
from django.forms.fields import InvalidJSONInput
from rest_framework.exceptions import ParseError

from subscriptions.parsers import parse_json
from subscriptions.problems import Problem


class StrictJSONField(forms.JSONField):
    """Take the JSON that the API takes: no lone surrogates, no NaN, no name twice, no nesting without end."""

    def to_python(self, value: Any) -> Any:
        if isinstance(value, str) and value not in self.empty_values:
            _check(value)
        return super().to_python(value)

    def bound_data(self, data: Any, initial: Any) -> Any:
        """Return what is shown again in a form that was refused: what was typed, if it is not such JSON."""
        if not isinstance(data, str):
            return super().bound_data(data, initial)
        try:
            _check(data)
        except forms.ValidationError:
            return InvalidJSONInput(data)
        return super().bound_data(data, initial)


# For pages with JSON columns of a model.
JSON_FIELDS: Mapping[type[models.Field], Mapping[str, Any]] = {models.JSONField: {"form_class": StrictJSONField}}


def _check(text: str) -> None:
    try:
        parse_json(text.encode())
    except ParseError:
        raise forms.ValidationError(forms.JSONField.default_error_messages["invalid"], code="invalid") from None
    except Problem:
        words = "An object in it has two members of the same name."
        raise forms.ValidationError(words, code="duplicate_member") from None
