"""GET /health: the process lives."""

import socket


def test_it_answers_whatever_becomes_of_the_database_and_of_redis(client, settings):
    # Without the fixture `db` a test cannot reach the database.
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        settings.REDIS_URL = f"redis://127.0.0.1:{nobody.getsockname()[1]}/0"
        answer = client.get("/health")
    assert (answer.status_code, answer["Content-Type"]) == (200, "application/json")
    assert answer.json() == {"status": "ok"}
