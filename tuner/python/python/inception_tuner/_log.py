"""What a user should know of weights, plans and machines goes to the logger `inception_tuner`."""

import logging

logger = logging.getLogger("inception_tuner")


def note(text: str) -> None:
    """Logs a line."""
    logger.warning("%s", text)
