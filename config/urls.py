from csp.constants import SELF, UNSAFE_INLINE
from csp.decorators import csp_replace
from django.contrib import admin
from django.urls import include, path, re_path
from drf_spectacular.views import SpectacularRedocView, SpectacularSwaggerSplitView

from config import queue_pages
from subscriptions import openapi, problems

# Swagger UI and Redoc put styles into their pages, and Redoc works in a thread of its own
# making. Their scripts are files all the same.
documentation = csp_replace({"style-src": [SELF, UNSAFE_INLINE], "worker-src": [SELF, "blob:"]})

urlpatterns = [
    path("", include("subscriptions.urls")),
    path("", include("deliveries.urls")),
    path("openapi.json", problems.read_only(openapi.description), name="schema"),
    path("docs", documentation(problems.read_only(SpectacularSwaggerSplitView.as_view())), name="docs"),
    path("redoc", documentation(problems.read_only(SpectacularRedocView.as_view())), name="redoc"),
    # Before the console's own, which end with a page for every other path.
    path("admin/rq/", include((queue_pages.urls(), "django_rq"))),
    path("admin/", admin.site.urls),
    # Last: with DEBUG on, handler404 is not asked, and Django would answer a page of HTML.
    re_path("", problems.not_found),
]

handler400 = "subscriptions.problems.bad_request"
handler404 = "subscriptions.problems.not_found"
handler500 = "subscriptions.problems.server_error"
