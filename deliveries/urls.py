from django.urls import path

from deliveries import event_views, metrics_views, operation_views, request_views, subscription_views, views

urlpatterns = [
    path("ready", views.ReadyView.as_view()),
    path("metrics", metrics_views.MetricsView.as_view()),
    path("ingest", views.IngestView.as_view()),
    path("events", event_views.EventListView.as_view()),
    path("events/batch", event_views.EventBatchView.as_view()),
    path("events/preview", event_views.EventPreviewView.as_view()),
    path("events/<uuid:event_id>", event_views.EventView.as_view()),
    path("status/request/<uuid:request_id>", views.RequestStatusView.as_view()),
    path("requests", request_views.RequestListView.as_view()),
    path("requests/<uuid:request_id>", request_views.RequestView.as_view()),
    path("requests/<uuid:request_id>/replay", request_views.ReplayView.as_view()),
    path("requests/<uuid:request_id>/cancel", request_views.CancelView.as_view()),
    path("operations", operation_views.OperationListView.as_view()),
    path("operations/<uuid:operation_id>", operation_views.OperationView.as_view()),
    path("operations/<uuid:operation_id>/cancel", operation_views.CancelOperationView.as_view()),
    path("status/subscription/<uuid:subscription_id>", views.SubscriptionStatusView.as_view()),
    path("subscriptions/<uuid:subscription_id>", subscription_views.SubscriptionView.as_view()),
    path("subscriptions/<uuid:subscription_id>/recover", operation_views.RecoverView.as_view()),
    path("subscriptions/<uuid:subscription_id>/test", subscription_views.TestView.as_view()),
]
