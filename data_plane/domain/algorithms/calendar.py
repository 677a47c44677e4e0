"""Windows of the UTC calendar: minutes, hours, days and weeks have one length, months are counted by civil dates.

The day arithmetic is that of the proleptic Gregorian calendar with years counted from March, so that the leap day is
the last of its year.
"""

from contract.limits import LAST_ANCHOR_DAY, MONDAY_US, LimitRule, nominal_window_us

_DAY_US = 86_400_000_000
_DAYS_TO_1970 = 719_468
_MONTHS_TO_1970 = 1970 * 12


def calendar_anchor_us(rule: LimitRule) -> int:
    """Where the first window begins: for months, the time after 00:00 UTC of the 1st; else less than a window."""
    if rule.calendar == "month":
        day = min(_day_of_month(rule.anchor_us), LAST_ANCHOR_DAY)
        return (day - 1) * _DAY_US + rule.anchor_us % _DAY_US
    anchor_us = rule.anchor_us or (MONDAY_US if rule.calendar == "week" else 0)
    return anchor_us % nominal_window_us(rule)


def month_of(instant_us: int) -> int:
    """How many months after January 1970 this instant lies in."""
    year, march_month, _ = _civil(instant_us)
    return year * 12 + march_month + 2 - _MONTHS_TO_1970


def month_start_us(month: int) -> int:
    """The instant at which a month, counted from January 1970, begins."""
    year, march_month = divmod(month + _MONTHS_TO_1970 - 2, 12)
    era, year_of_era = divmod(year, 400)
    day_of_year = (153 * march_month + 2) // 5
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    return (era * 146_097 + day_of_era - _DAYS_TO_1970) * _DAY_US


def _day_of_month(instant_us: int) -> int:
    _, _, day = _civil(instant_us)
    return day


def _civil(instant_us: int) -> tuple[int, int, int]:
    """Year counted from March, month of that year (0 is March), day of the month."""
    era, day_of_era = divmod(instant_us // _DAY_US + _DAYS_TO_1970, 146_097)
    year_of_era = (day_of_era - day_of_era // 1_460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    march_month = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * march_month + 2) // 5 + 1
    return era * 400 + year_of_era, march_month, day
