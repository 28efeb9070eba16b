"""Fields of the console's forms, and that nobody saves one over a change that they have not seen."""

from collections.abc import Mapping
from typing import Any

from django import forms
from django.contrib.postgres.forms import SimpleArrayField
from django.db import models
from django.forms.fields import InvalidJSONInput
from rest_framework.exceptions import ParseError

from subscriptions.parsers import parse_json
from subscriptions.problems import Problem
from subscriptions.strict import MOST_ITEMS, TOO_MANY_ITEMS


class StrictJSONField(forms.JSONField):
    """Take the JSON that the API takes: no lone surrogates, no NaN, no name twice, no nesting without end."""

    def to_python(self, value: Any) -> Any:
        if isinstance(value, str) and value not in self.empty_values:
            _check(value)
        return super().to_python(value)

    def prepare_value(self, value: Any) -> Any:
        """Show nothing for null, which an empty field means."""
        return "" if value is None else super().prepare_value(value)

    def bound_data(self, data: Any, initial: Any) -> Any:
        """Return what is shown again in a form that was refused: what was typed, if it is not such JSON."""
        if not isinstance(data, str):
            return super().bound_data(data, initial)
        try:
            _check(data)
        except forms.ValidationError:
            return InvalidJSONInput(data)
        return super().bound_data(data, initial)


class ExactCharField(forms.CharField):
    """Take spaces as they are typed: of a tenant, whose name the API takes as it is sent."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs | {"strip": False})


class LinesField(ExactCharField):
    r"""Take lines as they are stored: browsers end each with \r\n, which would be a change of all."""

    def to_python(self, value: Any) -> Any:
        return str(super().to_python(value)).replace("\r\n", "\n")


class ShortArrayField(SimpleArrayField):
    """Refuse very many items before each is looked at, as the API does."""

    def to_python(self, value: Any) -> Any:
        if isinstance(value, str) and value.count(self.delimiter) >= MOST_ITEMS:
            raise forms.ValidationError(TOO_MANY_ITEMS, code="max_length")
        return super().to_python(value)


class FreshForm(forms.ModelForm):
    """Refuse to change a row that was changed since its page was opened, as the API does with If-Match.

    For an admin that locks the row. Its page has to show `seen`.
    """

    seen = forms.CharField(required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_new = self.instance._state.adding  # noqa: SLF001 - Django documents it
        for field in self.fields.values():
            # What was changed is what is not as it is stored, whatever the form says that it was.
            field.show_hidden_initial = False
        if not self._is_new:
            self.initial["seen"] = self.state_of(self.instance)

    @staticmethod
    def state_of(row: Any) -> str:
        """Return a text that is another one once the row was changed: when it was, if the model tells."""
        return str(row.updated_at.isoformat())

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        if not self._is_new and self.cleaned_data.get("seen") != self.initial["seen"]:
            raise forms.ValidationError(
                "Nothing is saved: this was changed since the page was opened. "
                "Open it again in another tab to see how it is now.",
                code="stale",
            )
        return cleaned


# For pages with columns of JSON, or of lines, of a model.
FORM_FIELDS: Mapping[type[models.Field], Mapping[str, Any]] = {
    models.JSONField: {"form_class": StrictJSONField},
    models.TextField: {"form_class": LinesField},
}


def _check(text: str) -> None:
    try:
        parse_json(text.encode())
    except ParseError:
        raise forms.ValidationError(forms.JSONField.default_error_messages["invalid"], code="invalid") from None
    except Problem:
        words = "An object in it has two members of the same name."
        raise forms.ValidationError(words, code="duplicate_member") from None
