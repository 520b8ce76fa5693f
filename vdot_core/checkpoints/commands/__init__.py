"""Subcommands of the command line; each module has HELP, add_arguments(parser) and run(options)."""

from . import convert, inspect

COMMANDS = {"inspect": inspect, "convert": convert}

__all__ = ["COMMANDS"]
