"""`medveil verify`: check evidence offline, against a pinned trust file. It never succeeds on a part of it."""

from medveil.verification.folder import verify
from medveil.verification.report import Check, Finding, Flow, Report

__all__ = ["verify", "Check", "Finding", "Flow", "Report"]
