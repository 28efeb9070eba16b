"""Outside development mode everything but the health checks and signed calls is for HTTPS."""

import pytest
import requests

pytestmark = pytest.mark.processes

OVER_TLS = {"X-Forwarded-Proto": "https"}


@pytest.mark.parametrize("path", ["/subscriptions", "/admin/login/?next=/", "/docs", "/openapi.json"])
def test_plain_http_is_redirected(production, path):
    answer = requests.get(production.url + path, allow_redirects=False, timeout=10)
    assert answer.status_code == 301
    assert answer.headers["Location"] == production.url.replace("http://", "https://") + path


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_a_load_balancer_asks_in_plain_http(production, path):
    answer = requests.get(production.url + path, allow_redirects=False, timeout=10)
    assert answer.status_code in (200, 503)
    assert answer.headers["Content-Type"] == "application/json"


def test_a_monitoring_system_asks_in_plain_http_with_its_token(production):
    bearer = {"Authorization": f"Bearer {production.environment['METRICS_TOKEN']}"}
    answers = [
        requests.get(f"{production.url}/metrics", headers=headers, allow_redirects=False, timeout=10)
        for headers in (bearer, {}, {"Authorization": "Bearer another"})
    ]
    assert [answer.status_code for answer in answers] == [200, 401, 401]
    assert answers[0].headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize("path", ["/health", "/admin/login/", "/openapi.json", "/nowhere"])
def test_answers_over_tls_carry_the_headers_that_browsers_obey(production, path):
    answer = requests.get(production.url + path, headers=OVER_TLS, allow_redirects=False, timeout=10)
    wanted = {
        "Strict-Transport-Security": "max-age=31536000",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "X-Frame-Options": "DENY",
    }
    assert {name: answer.headers.get(name) for name in wanted} == wanted


def test_cookies_of_the_admin_are_for_https_alone(production):
    answer = requests.get(f"{production.url}/admin/login/", headers=OVER_TLS, timeout=10)
    assert answer.status_code == 200
    cookies = list(answer.cookies)
    assert cookies
    assert all(cookie.secure for cookie in cookies)


def test_an_api_key_is_required(production):
    answer = requests.post(f"{production.url}/subscriptions", json={}, headers=OVER_TLS, timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")
