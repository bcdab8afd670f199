"""Parts of the grammar that the fields of an output share: texts, numbers, percent and counts of words.

The parsers take any JSON value and raise ValueError for one that is not accepted. The patterns are valid in ECMA-262.
"""

from __future__ import annotations

import re
from typing import Any

NUMBER = r"([0-9]{1,6}(?:\.[0-9]{1,3})?)"
DECIMALS = r"(?:\.[0-9]{1,3})?"
TO_100 = rf"(?:100(?:\.0{{1,3}})?|[1-9]?[0-9]{DECIMALS})"
_PERCENT = re.compile(rf"(-?){NUMBER}%")


def text_of(value: Any) -> str:
    """Returns the text without the spaces around it."""
    if not isinstance(value, str):
        raise ValueError
    return value.strip()


TRUE = frozenset(("true", "t", "1", "yes", "y", "on"))
FALSE = frozenset(("false", "f", "0", "no", "n", "off"))
"""Words for booleans, as clients write them: "True" is Python's, "1" PHP's, "on" that of an HTML form."""


def boolean(value: Any) -> bool:
    """Returns a boolean that is one, or one of these words in any case."""
    if isinstance(value, bool):
        return value
    text = text_of(value).lower()
    if text not in TRUE | FALSE:
        raise ValueError
    return text in TRUE


def is_unicode(text: str) -> bool:
    """Whether a text can be encoded. JSON may contain single surrogates, such as "\\ud800", which have no UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def percent(text: str, minimum: float = 0, maximum: float = 100) -> float:
    """Returns the number of a text such as "12.5%" between the limits, in percent."""
    found = _PERCENT.fullmatch(text)
    if not found:
        raise ValueError
    value = -float(found[2]) if found[1] else float(found[2])
    if not minimum <= value <= maximum or (found[1] and minimum >= 0):
        raise ValueError
    return value + 0.0  # -0 and 0 are one value with one text


def several(values: list[Any], *counts: int) -> list[Any]:
    """Returns the values if their number is one of `counts`."""
    if len(values) not in counts:
        raise ValueError
    return values
