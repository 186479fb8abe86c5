"""What a person is called: one spelling for all the ways in which tables, officers and wallets write an identifier.

Without blanks at its ends, without characters that nobody sees, and in half-width characters (NFKC); an identity
number (GB 11643) also without any blanks, hyphens or a spreadsheet's apostrophe before it, with a capital X, and with
the eighteen characters that it has had since 1999. Capitals are not folded otherwise: p1 and P1 may be two persons.

    " P-7 "              -> "P-7"
    "110101 19900307 451x" -> "11010119900307451X"
    "'330106-19910523-0170" -> "330106199105230170"
    "330106910523017"    -> "330106199105230170"        of before 1999: the century and the check character are added
"""

from __future__ import annotations

import re
import unicodedata
from datetime import date

_NUMBER = re.compile(r"[1-9][0-9]{16}[0-9X]")
_OLD_NUMBER = re.compile(r"[1-9][0-9]{14}")
_LENGTHS = (15, 18)
_UNSEEN = frozenset(("Cc", "Cf"))
"""Categories of characters that nobody sees: controls, zero-width ones, byte order marks. Blanks are not dropped."""
_REGIONS = frozenset(
    (*range(11, 16), *range(21, 24), *range(31, 38), *range(41, 47), *range(50, 55), *range(61, 66), 71, 81, 82, 83)
)
"""The first two digits of every region that has given out numbers. Counties are not looked up: many are gone."""


def canonical(person: str) -> str:
    """The one spelling of an identifier (secret) that keyed ids are made of; of a canonical one, itself. Pure.

    Fifteen digits are an identity number where region and day of birth can be. Eighteen need no right check character:
    one that was mistyped is spelled in several ways all the same.
    """
    if person.isascii() and person.isprintable() and " " not in person:  # as nearly all are: nothing is unseen or wide
        plain, compact = person, person.replace("-", "").removeprefix("'")
    else:
        seen = "".join(one for one in person if one.isspace() or unicodedata.category(one) not in _UNSEEN)
        plain = unicodedata.normalize("NFKC", seen).strip()
        compact = "".join(one for one in plain if not one.isspace() and unicodedata.category(one) != "Pd")
        compact = compact.removeprefix("'")
    if len(compact) not in _LENGTHS:
        return plain
    compact = compact.upper()
    if _OLD_NUMBER.fullmatch(compact):
        return _since_1999(compact) if _plausible(compact) else plain
    return compact if _NUMBER.fullmatch(compact) else plain


def _plausible(digits: str) -> bool:
    """Whether fifteen digits can be an identity number."""
    try:
        date(1900 + int(digits[6:8]), int(digits[8:10]), int(digits[10:12]))
    except ValueError:
        return False
    return int(digits[:2]) in _REGIONS


def _since_1999(digits: str) -> str:
    """The eighteen characters of an identity number of fifteen digits."""
    from stdnum.cn import ric

    whole = f"{digits[:6]}19{digits[6:]}"
    return whole + str(ric.calc_check_digit(whole + "0"))
