from django.contrib import admin
from django.urls import include, path
from drf_spectacular.views import SpectacularJSONAPIView, SpectacularRedocView, SpectacularSwaggerView

urlpatterns = [
    path("", include("subscriptions.urls")),
    path("", include("deliveries.urls")),
    path("openapi.json", SpectacularJSONAPIView.as_view(), name="schema"),
    path("docs", SpectacularSwaggerView.as_view(), name="docs"),
    path("redoc", SpectacularRedocView.as_view(), name="redoc"),
    path("admin/", admin.site.urls),
]

handler400 = "subscriptions.problems.bad_request"
handler404 = "subscriptions.problems.not_found"
handler500 = "subscriptions.problems.server_error"
