"""Subcommands of the command line; each module has HELP, add_arguments(parser) and run(options)."""

from . import convert, inspect, lora, merge, split, verify

COMMANDS = {
    "inspect": inspect,
    "convert": convert,
    "lora": lora,
    "split": split,
    "merge": merge,
    "verify": verify,
}

__all__ = ["COMMANDS"]
