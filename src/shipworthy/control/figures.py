"""Figures as people and providers write them, read exactly: no float is ever in between."""

from __future__ import annotations

import re
from decimal import ROUND_HALF_UP, Context, Decimal, Inexact, InvalidOperation

from shipworthy.model.money import NANO_PER_USD

FIGURE_CHARS_MAX = 64
WHOLE_DIGITS_MAX = 15
DECIMALS_MAX = 60
EXACT = Context(prec=100, traps=[Inexact, InvalidOperation])
"""Sums of a million figures fit; one that does not is an error, never rounded."""

NANO = Decimal(NANO_PER_USD)
SPACES = "\u00a0\u202f "
FORMS = {
    mark: re.compile(
        rf"(?P<whole>[0-9]{{1,3}}(?:(?P<group>[{groups}_'{SPACES}])[0-9]{{3}})(?:(?P=group)[0-9]{{3}})*|[0-9]+)?"
        rf"(?:\{mark}(?P<decimals>[0-9]*))?(?:[eE](?P<exponent>[+-]?[0-9]{{1,2}}))?"
    )
    for mark, groups in ((".", ","), (",", "."))
}
AROUND = re.compile(r"(?:US\$|USD|\$)|(?:US\$|USD|\$)$", re.IGNORECASE)


def exact(said: str, mark: str = ".") -> Decimal:
    """The number that ``said`` writes with ``mark`` before its decimals. Raises ValueError with the reason.

    Thousands may be grouped (``1,234.5``, ``1 234.5``), dollars may say so, parentheses are a minus, and the exponent of a
    printed float (``1.2e-05``) is one.
    """
    text = said.strip(SPACES + "\t")
    if len(text) > FIGURE_CHARS_MAX:
        raise ValueError(f"a figure of {len(text)} letters; at most {FIGURE_CHARS_MAX} are read")
    negative = text.startswith("(") and text.endswith(")")
    text = text[1:-1].strip(SPACES) if negative else text
    sign, text = _signed(text)
    text = AROUND.sub("", text, count=1).strip(SPACES)
    if not sign:
        sign, text = _signed(text)
    found = FORMS[mark].fullmatch(text)
    if found is None or not (found["whole"] or found["decimals"]):
        hint = "; is the comma its decimal mark? say --decimal comma" if mark == "." and "," in text else ""
        raise ValueError(f"{said!r} is no number{hint}")
    whole = re.sub(r"[^0-9]", "", found["whole"] or "0")
    figure = Decimal(f"{sign}{whole}.{found['decimals'] or '0'}e{found['exponent'] or '0'}")
    if (figure and figure.adjusted() >= WHOLE_DIGITS_MAX) or int(figure.as_tuple().exponent) < -DECIMALS_MAX:
        raise ValueError(f"{said!r} is out of range")
    return EXACT.minus(figure) if negative else figure


def count(said: str, mark: str = ".") -> int:
    """A whole number that is not below zero; ``12.0`` is one. Raises ValueError."""
    figure = exact(said, mark)
    if figure < 0 or figure != figure.to_integral_value():
        raise ValueError(f"{said!r} is no whole number of zero or more")
    return int(figure)


def nano_of(said: str) -> int:
    """Dollars as nano-dollars, at most nine decimals. Raises ValueError."""
    nano = EXACT.multiply(exact(said), NANO)
    if nano != nano.to_integral_value():
        raise ValueError(f"{said!r} has more than nine decimals")
    return int(nano)


def rounded_nano(usd: Decimal) -> int:
    """Dollars to the nearest nano-dollar, half away from zero."""
    return int(EXACT.multiply(usd, NANO).to_integral_value(ROUND_HALF_UP))


def plainly(figure: Decimal) -> str:
    """The figure in full, without an exponent and without decimals that say nothing."""
    text = f"{figure:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _signed(text: str) -> tuple[str, str]:
    if text[:1] in ("-", "+", "\u2212"):
        return ("" if text[0] == "+" else "-"), text[1:].strip(SPACES)
    return "", text
