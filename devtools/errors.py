"""The one error that dev.py shows as a sentence instead of a traceback."""


class DevError(Exception):
    """Something a user can act on; the message says what was found and what to do."""


class UsageError(DevError):
    """A flag that does not fit; nothing has failed."""
