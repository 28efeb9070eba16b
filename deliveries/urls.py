from django.urls import path

from deliveries import views

urlpatterns = [
    path("ready", views.ReadyView.as_view()),
    path("ingest", views.IngestView.as_view()),
    path("status/request/<uuid:request_id>", views.RequestStatusView.as_view()),
    path("status/subscription/<uuid:subscription_id>", views.SubscriptionStatusView.as_view()),
]
