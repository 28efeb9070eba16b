"""/docs and /redoc: made of this host's files alone."""

import re

import pytest


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_it_shows_documentation_that_needs_no_other_host(client, path):
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer["Content-Type"] == "text/html; charset=utf-8"
    page = answer.content.decode()

    files = re.findall(r"""(?:src|href)=["'](?!data:)([^"']+)["']""", page)
    assert files
    assert [file for file in files if not file.startswith(("/static/", "/docs?script="))] == []
    assert re.findall(r"https?://|\burl\(", page) == []
    for file in files:
        found = client.get(file)
        assert (file, found.status_code) == (file, 200)
        found.getvalue()


def test_it_tells_both_pages_where_the_description_is(client):
    assert "/openapi.json" in client.get("/redoc").content.decode()
    assert 'url: "/openapi.json"' in client.get("/docs?script=").content.decode()


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_it_forbids_the_pages_to_load_anything_from_elsewhere(client, path):
    # Redoc's bundle has the address of a logo in it.
    assert set(client.get(path)["Content-Security-Policy"].split("; ")) == {
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    }
