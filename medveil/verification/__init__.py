"""`medveil verify`: check evidence offline, against a pinned trust file. It never succeeds on a part of it."""

from medveil.verification.folder import verify
from medveil.verification.report import Check, Flow, Report

__all__ = ["verify", "Check", "Flow", "Report"]
