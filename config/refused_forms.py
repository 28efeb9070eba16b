"""The log's line of a form that was refused (CSRF): it tells what CSRF_TRUSTED_ORIGINS lacks, and no more."""

import logging

# Of each text: longer ones hold no origin.
LONGEST_TEXT = 300


class Shortened(logging.Filter):
    """Cut what the caller says, who could fill the log with it. Django has it in visible ASCII already."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.args = tuple(_shortened(str(each)) for each in record.args or ())
        # Django's request, which a formatter writes as its path with the query: the path is told without.
        vars(record).pop("request", None)
        return True


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}… ({len(text)} characters)"
