"""Regexes of the string formats (the names of JSON Schema, the grammars of the RFCs)."""

from __future__ import annotations

_HEX = "[0-9a-fA-F]"


def _group(*options: str) -> str:
    return f"(?:{'|'.join(options)})"


def _dates() -> str:
    """RFC 3339 full-date in the proleptic Gregorian calendar, in which year 0000 is a leap year."""
    long_month = _group("0[13578]", "1[02]") + "-" + _group("0[1-9]", "[12][0-9]", "3[01]")
    short_month = _group("0[469]", "11") + "-" + _group("0[1-9]", "[12][0-9]", "30")
    february = "02-" + _group("0[1-9]", "1[0-9]", "2[0-8]")
    # Two digits that are a multiple of four, without and with 00.
    by_four = _group("0[48]", "[2468][048]", "[13579][26]")
    century_by_four = _group("[02468][048]", "[13579][26]")
    leap_year = _group(f"[0-9]{{2}}{by_four}", f"{century_by_four}00")
    return _group(
        "[0-9]{4}-" + _group(long_month, short_month, february),
        f"{leap_year}-02-29",
    )


_SECOND_FRACTION = r"(?:\.[0-9]+)?"
# Second 60 comes once in a day, at 23:59 UTC. Other offsets than that of UTC shift the minute in
# which it comes; an automaton needs 11,000 states to compare the two.
_LEAP_SECOND = f"23:59:60{_SECOND_FRACTION}" + _group("[zZ]", r"[+-]00:00")


def _seconds_below_60() -> str:
    hour_minute = _group("[01][0-9]", "2[0-3]") + ":[0-5][0-9]"
    return f"{hour_minute}:[0-5][0-9]{_SECOND_FRACTION}" + _group("[zZ]", f"[+-]{hour_minute}")


def _times() -> str:
    """RFC 3339 full-time; a leap second is written in UTC only."""
    return _group(_seconds_below_60(), _LEAP_SECOND)


def _date_times() -> str:
    """RFC 3339 date-time; a leap second comes at the end of June or December (section 5.7)."""
    leap_second = f"[0-9]{{4}}-{_group('06-30', '12-31')}[tT]{_LEAP_SECOND}"
    return _group(f"{_dates()}[tT]{_seconds_below_60()}", leap_second)


def _falling_units(units: str) -> str:
    """Numbers with units in falling order without gaps: for "HMS" 1H, 1H2M, 2M3S …"""
    tails = ""
    options = []
    for unit in reversed(units):
        tails = f"[0-9]+{unit}(?:{tails})?" if tails else f"[0-9]+{unit}"
        options.append(tails)
    return _group(*options)


def _durations() -> str:
    """RFC 3339 appendix A."""
    time = "T" + _falling_units("HMS")
    return "P" + _group(f"{_falling_units('YMD')}(?:{time})?", time, "[0-9]+W")


def _ipv4() -> str:
    byte = _group("[0-9]", "[1-9][0-9]", "1[0-9]{2}", "2[0-4][0-9]", "25[0-5]")
    return rf"(?:{byte}\.){{3}}{byte}"


def _ipv6() -> str:
    """RFC 4291 without embedded IPv4; "::" stands for at least one group."""
    group = f"{_HEX}{{1,4}}"
    options = [f"(?:{group}:){{7}}{group}"]
    for before in range(8):
        left = f"(?:{group}:){{{before - 1}}}{group}" if before else ""
        right = f"(?:{group}(?::{group}){{0,{6 - before}}})?" if before < 7 else ""
        options.append(f"{left}::{right}")
    return _group(*options)


def _hostnames(most_inner: str) -> str:
    label = f"[a-zA-Z0-9](?:[a-zA-Z0-9-]{most_inner}[a-zA-Z0-9])?"
    return rf"{label}(?:\.{label})*"


def _emails() -> str:
    """RFC 5321 Mailbox with a dot-string before the @."""
    atom = r"[a-zA-Z0-9!#$%&'*+\-/=?\^_`{|}~]+"
    return rf"{atom}(?:\.{atom})*@" + _group(_hostnames("*"), rf"\[{_ipv4()}\]")


def _uris() -> str:
    """RFC 3986 URI."""
    kept = r"a-zA-Z0-9\-._~!$&'()*+,;="

    def text(extra: str) -> str:
        return _group(f"[{kept}{extra}]", f"%{_HEX}{{2}}")

    future = rf"v{_HEX}+\.[{kept}:]+"
    host = _group(rf"\[{_group(_ipv6(), future)}\]", f"{text('')}*")
    segment = text(":@")
    segments = f"(?:/{segment}*)*"
    path = _group(
        f"//(?:{text(':')}*@)?{host}(?::[0-9]*)?{segments}",
        f"/(?:{segment}+{segments})?",
        f"{segment}+{segments}",
        "",
    )
    rest = text(":@/?")
    return rf"[a-zA-Z][a-zA-Z0-9+\-.]*:{path}(?:\?{rest}*)?(?:#{rest}*)?"


FORMATS = {
    "date": _dates(),
    "time": _times(),
    "date-time": _date_times(),
    "duration": _durations(),
    "email": _emails(),
    "hostname": _hostnames("{0,61}"),
    "ipv4": _ipv4(),
    "ipv6": _ipv6(),
    "uuid": f"{_HEX}{{8}}-(?:{_HEX}{{4}}-){{3}}{_HEX}{{12}}",
    "uri": _uris(),
    "unknown": "(?s).*",
}
