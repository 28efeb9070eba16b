"""The console's forms of a subscription: what the API refuses, they refuse in its words."""

from typing import Any

from django import forms
from rest_framework import serializers

from subscriptions import secrets
from subscriptions.event_types import MAX_LENGTH
from subscriptions.fields import AuthField, CertificatesField, FilterField, HeadersField
from subscriptions.form_fields import ExactCharField, FreshForm, LinesField, ShortArrayField, StrictJSONField
from subscriptions.models import LONGEST_RETRY_DELAY_SECONDS, MAX_EVENT_TYPES, MAX_RETRIES, Subscription
from subscriptions.strict import MOST_ITEMS, TOO_MANY_ITEMS
from subscriptions.validation import validate_event_type_pattern, validate_metadata, validate_secret

WIDE = {"class": "vLargeTextField"}
SECRET_TEXT = forms.Textarea(attrs=WIDE | {"rows": 3, "autocomplete": "off"})


class SubscriptionForm(FreshForm):
    # Written out, because the fields that Django would make do not say what is wrong with an item.
    event_types = ShortArrayField(
        forms.CharField(max_length=MAX_LENGTH, validators=[validate_event_type_pattern]),
        required=False,
        max_length=MAX_EVENT_TYPES,
        widget=forms.TextInput(attrs=WIDE),
        help_text="Separated by commas: names (invoice.paid), wildcards (invoice.*) or *. None means every event.",
    )
    retry_schedule = ShortArrayField(
        forms.IntegerField(min_value=1, max_value=LONGEST_RETRY_DELAY_SECONDS),
        required=False,
        max_length=MAX_RETRIES,
        widget=forms.TextInput(attrs=WIDE),
        help_text="Seconds to wait after each failed attempt, separated by commas. None means a single attempt.",
    )

    filter = StrictJSONField(
        required=False,
        help_text='Which of the events of these types are wanted, in JSON: {"body": {"total": {"$gte": 100}}}. '
        "Empty: all.",
    )
    headers = StrictJSONField(required=False, help_text='Extra headers to send, in JSON: {"X-Route": "a"}.')
    secret_headers = StrictJSONField(
        required=False,
        widget=SECRET_TEXT,
        help_text="Extra headers whose values are never shown, in JSON. Empty keeps what there is; {} removes it.",
    )
    auth = StrictJSONField(
        required=False,
        widget=SECRET_TEXT,
        help_text='How calls authenticate to the receiver, in JSON: {"type": "bearer", "token": "…"}. '
        "Never shown. Empty keeps what there is; {} removes it.",
    )

    class Meta:
        model = Subscription
        fields = "__all__"  # the admin lists the fields
        field_classes = {"tenant": ExactCharField, "description": LinesField}
        labels = {"target_url": "Target URL", "ca_certificates": "CA certificates"}
        widgets = {
            "target_url": forms.TextInput(attrs=WIDE),
            "description": forms.Textarea(attrs=WIDE | {"rows": 2}),  # over the API it may have lines
        }

    def clean_metadata(self) -> Any:
        metadata = {} if self.cleaned_data["metadata"] is None else self.cleaned_data["metadata"]
        validate_metadata(metadata)  # the model takes [] and "" for a field left empty, and does not look
        return metadata

    def clean_filter(self) -> Any:
        return _checked(FilterField(allow_null=True), self.cleaned_data["filter"])

    def clean_headers(self) -> Any:
        return _checked(HeadersField(), self.cleaned_data["headers"] or {})

    def clean_secret_headers(self) -> Any:
        return _checked(HeadersField(), self.cleaned_data["secret_headers"] or {})

    def clean_auth(self) -> Any:
        return _checked(AuthField(allow_null=True), self.cleaned_data["auth"] or None)

    def clean_ca_certificates(self) -> Any:
        certificates = self.cleaned_data["ca_certificates"]
        if "ca_certificates" not in self.changed_data:
            return certificates  # they may be from when there was more room for them
        return _checked(CertificatesField(), certificates if certificates.strip() else "")

    def seal(self, subscription: Subscription) -> None:
        """Encrypt what was given of the fields that are never shown into the subscription, unsaved."""
        if "secret_headers" in self.changed_data:
            subscription.set_secret_headers(self.cleaned_data["secret_headers"])
        if "auth" in self.changed_data:
            subscription.set_auth(self.cleaned_data["auth"])


def _checked(field: serializers.Field, value: Any) -> Any:
    """Return what the API would make of `value`; raise forms.ValidationError in its words."""
    if isinstance(field, serializers.DictField) and isinstance(value, dict) and len(value) > MOST_ITEMS:
        raise forms.ValidationError(TOO_MANY_ITEMS)
    try:
        return field.run_validation(value)
    except serializers.ValidationError as error:
        raise forms.ValidationError(_words(error.detail)) from None


def _words(detail: Any) -> list[str]:
    if isinstance(detail, dict):
        return [f"{name}: {words}" for name, each in detail.items() for words in _words(each)]
    return [str(words) for words in detail]


class NewSubscriptionForm(SubscriptionForm):
    secret = forms.CharField(
        required=False,
        strip=False,
        max_length=secrets.MAX_LENGTH,
        validators=[validate_secret],
        widget=forms.TextInput(attrs=WIDE | {"autocomplete": "off"}),
        help_text="Signs ingest calls and deliveries. Leave it empty to have one made.",
    )
