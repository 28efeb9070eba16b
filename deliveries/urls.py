from django.urls import path

from deliveries import request_views, subscription_views, views

urlpatterns = [
    path("ready", views.ReadyView.as_view()),
    path("ingest", views.IngestView.as_view()),
    path("status/request/<uuid:request_id>", views.RequestStatusView.as_view()),
    path("requests", request_views.RequestListView.as_view()),
    path("requests/<uuid:request_id>", request_views.RequestView.as_view()),
    path("status/subscription/<uuid:subscription_id>", views.SubscriptionStatusView.as_view()),
    path("subscriptions/<uuid:subscription_id>", subscription_views.SubscriptionView.as_view()),
]
