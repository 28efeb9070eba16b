from django.urls import path

from subscriptions import views

urlpatterns = [
    path("health", views.HealthView.as_view()),
    path("subscriptions", views.SubscriptionListView.as_view()),
    path("subscriptions/<uuid:subscription_id>", views.SubscriptionView.as_view()),
]
