"""The one error that dev.py shows as a sentence instead of a traceback."""


class DevError(Exception):
    """An error that a user can act on; the message says what was found and what to do."""


class UsageError(DevError):
    """A wrong command-line flag."""


def counted(count: int, noun: str) -> str:
    """A number and its noun, in the plural unless it is one."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
