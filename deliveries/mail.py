"""Mail to the people who look after the service; nothing waits for a mail server."""

import logging
import threading

from django.conf import settings
from django.core.mail import mail_admins

logger = logging.getLogger(__name__)

# A mail server usually takes a mail within this. What takes longer goes on in the background.
WAIT_SECONDS = 5.0


def send(subject: str, text: str) -> None:
    """Mail this to ADMINS, if there are any. What goes wrong is only logged: the mail is not sent again."""
    if not settings.ADMINS:
        return
    thread = threading.Thread(target=_send, args=(subject, text), name="mail", daemon=True)
    thread.start()
    thread.join(WAIT_SECONDS)


def _send(subject: str, text: str) -> None:
    try:
        mail_admins(subject, text)
    except OSError as error:  # the mail server's or the network's doing; smtplib's own errors are of this kind
        reason = f"{type(error).__name__}: {error}"
        logger.warning("a mail could not be sent", extra={"subject": subject, "reason": reason})
    except Exception:  # nobody waits for this thread: what else is wrong shows in the log or nowhere
        logger.exception("a mail could not be sent", extra={"subject": subject})
