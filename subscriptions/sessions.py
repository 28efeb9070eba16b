"""The sessions of the console, by hashes of their keys: whoever reads the database cannot go on with one."""

from hashlib import sha256
from typing import Any

from django.contrib.sessions.backends import db
from django.utils import timezone

# As many as Django's column takes, of 160 bits; a key has no more.
_DIGITS = 40


class SessionStore(db.SessionStore):
    """Django's, but for what the database knows of a key. A new key is as random as the hash is long."""

    def exists(self, session_key: str) -> bool:
        return super().exists(_stored(session_key))

    def create_model_instance(self, data: dict[str, Any]) -> Any:
        row = super().create_model_instance(data)
        row.session_key = _stored(row.session_key)
        return row

    def delete(self, session_key: str | None = None) -> None:
        key = session_key or self.session_key
        if key is not None:
            super().delete(_stored(key))

    def _get_session_from_db(self) -> Any:
        living = self.model.objects.filter(expire_date__gt=timezone.now())
        try:
            return living.get(session_key=_stored(str(self.session_key)))
        except self.model.DoesNotExist:
            self._session_key = None
            return None


def _stored(session_key: str) -> str:
    return sha256(session_key.encode()).hexdigest()[:_DIGITS]
