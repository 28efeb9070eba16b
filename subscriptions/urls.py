from django.urls import path

from subscriptions import event_type_views, verb_views, views

urlpatterns = [
    path("health", views.HealthView.as_view()),
    path("event-types", event_type_views.EventTypeListView.as_view()),
    path("event-types/<str:name>", event_type_views.EventTypeView.as_view()),
    path("subscriptions", views.SubscriptionListView.as_view()),
    path("subscriptions/<uuid:subscription_id>/pause", verb_views.PauseView.as_view()),
    path("subscriptions/<uuid:subscription_id>/resume", verb_views.ResumeView.as_view()),
    path("subscriptions/<uuid:subscription_id>/enable", verb_views.EnableView.as_view()),
    path("subscriptions/<uuid:subscription_id>/disable", verb_views.DisableView.as_view()),
    path("subscriptions/<uuid:subscription_id>/rotate-secret", verb_views.RotateSecretView.as_view()),
]
