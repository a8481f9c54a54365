"""What a guard concluded, and the receipt that it ran, or that none was configured."""

from __future__ import annotations

from msgspec import Struct


class Receipt(Struct, frozen=True, gc=False):
    """Proof that a check ran, was left out by policy, or does not exist here. A missing receipt is a defect."""

    stage: str
    check: str
    status: str  # ran | not_configured
    detail: str = ""


class Screened(Struct, frozen=True):
    """The request after every input guard. ``receipts`` say what was scanned."""

    receipts: tuple[Receipt, ...]
