"""The error tree: one class per exit code of the command line.

Imports nothing of ours, so that every room can raise these.
"""

from __future__ import annotations

from typing import ClassVar


class NdpError(Exception):
    """Base of every error this package raises on purpose.

    The message is written for the person at the keyboard: one line that says what is
    wrong and how to mend it.
    """

    exit_code: ClassVar[int] = 1


class GateError(NdpError):
    """A gate fell short: accuracy, latency or golden replay (exit 1)."""


class InputError(NdpError):
    """The user's input or options are wrong (exit 2)."""

    exit_code = 2


class MachineError(NdpError):
    """The machine lacks something; the message names the command that installs it (exit 3)."""

    exit_code = 3
