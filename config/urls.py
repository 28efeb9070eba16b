from django.contrib import admin
from django.urls import include, path, re_path
from drf_spectacular.views import SpectacularJSONAPIView, SpectacularRedocView, SpectacularSwaggerView

from subscriptions import problems

urlpatterns = [
    path("", include("subscriptions.urls")),
    path("", include("deliveries.urls")),
    path("openapi.json", SpectacularJSONAPIView.as_view(), name="schema"),
    path("docs", SpectacularSwaggerView.as_view(), name="docs"),
    path("redoc", SpectacularRedocView.as_view(), name="redoc"),
    path("admin/", admin.site.urls),
    # Last: with DEBUG on, handler404 is not asked, and Django would answer a page of HTML.
    re_path("", problems.not_found),
]

handler400 = "subscriptions.problems.bad_request"
handler404 = "subscriptions.problems.not_found"
handler500 = "subscriptions.problems.server_error"
