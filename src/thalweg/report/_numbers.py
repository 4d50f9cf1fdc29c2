"""Numbers as a reader wants them: the error in the last digits, powers of ten where they are long."""

import math
from typing import Any


def number(value: Any, error: Any = None) -> str:
    """`value` in words; a number with an error carries it in its last digits.

    >>> number(141.633, 0.004), number(3.82e-6, 4e-8), number(1.0036974, 0)
    ('141.6330(40)', '3.820(40)e-6', '1.0036974')
    """
    if isinstance(value, dict) and set(value) == {"value", "error"}:
        return number(value["value"], value["error"])
    if isinstance(value, dict):
        return ", ".join(f"{name} {number(item)}" for name, item in value.items())
    if isinstance(value, list):
        errors = error if isinstance(error, list) and len(error) == len(value) else [error] * len(value)
        return ", ".join(number(item, each) for item, each in zip(value, errors, strict=True))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "—" if value is None else str(value)
    if isinstance(error, bool) or not isinstance(error, int | float) or not 0 < error < math.inf:
        return str(value) if isinstance(value, int) and abs(value) < 10**9 else _exponent(f"{value:.8g}")
    power = math.floor(math.log10(max(abs(value), error)))
    if -4 <= power < 6:
        return _last_digits(value, error)
    return f"{_last_digits(value / 10.0**power, error / 10.0**power)}e{power}"


def _last_digits(value: float, error: float) -> str:
    """Two digits of the error, in parentheses: 141.6330(40)."""
    digits = 1 - math.floor(math.log10(error))
    if round(error * 10.0**digits) >= 100:  # 0.0996 rounds up to 0.100
        digits -= 1
    if digits <= 0:
        return f"{round(value, digits):.0f}({round(error, digits):.0f})"
    return f"{value:.{digits}f}({round(error * 10.0**digits)})"


def _exponent(text: str) -> str:
    """1e-06 as 1e-6."""
    mantissa, mark, power = text.partition("e")
    return f"{mantissa}e{int(power)}" if mark else text
