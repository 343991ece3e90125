import pytest
from hypothesis import given
from hypothesis import strategies as st

from cars_hw.config.units import format_latency, in_milliseconds, parse_latency, parse_memory, parse_span
from cars_hw.errors import UnitError


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("20ms", 20),
        ("1.5ms", 1.5),
        ("0.02s", 20),
        (".5s", 500),
        ("800us", 0.8),
        ("800µs", 0.8),
        ("800\N{GREEK SMALL LETTER MU}s", 0.8),
        (" 3 ms ", 3),
        ("2S", 2000),
        ("1e-3s", 1),
        ("2.5E2us", 0.25),
    ],
)
def test_latencies_with_a_unit(text: str, milliseconds: float) -> None:
    assert parse_latency(text) == pytest.approx(milliseconds, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("20", "latency '20' has no unit; write it as us, ms or s"),
        ("1e3", "has no unit"),
        ("20min", "has an unknown unit 'min'"),
        ("20m", "has an unknown unit 'm'"),
        ("20ns", "has an unknown unit 'ns'"),
        ("0ms", "must be more than nothing and finite"),
        ("0.0s", "must be more than nothing and finite"),
        ("1e400ms", "must be more than nothing and finite"),
        ("-5ms", "is not a latency; write it with its unit"),
        ("", "is not a latency"),
        ("ms", "is not a latency"),
        ("nan ms", "is not a latency"),
        ("infms", "is not a latency"),
        ("1,5ms", "is not a latency"),
        ("20ms 30ms", "is not a latency"),
        ("٣ms", "is not a latency"),
        ("1.2.3ms", "is not a latency"),
    ],
)
def test_anything_else_is_refused(text: str, message: str) -> None:
    with pytest.raises(UnitError, match=message):
        parse_latency(text)


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0.37144, "0.3714 ms"),
        (0.5, "0.5 ms"),
        (1e-5, "0.00001 ms"),
        (20.0, "20 ms"),
        (999.96, "1000 ms"),
        (12345.0, "12340 ms"),
        (1e6, "1000000 ms"),
        (0.0, "0 ms"),
    ],
)
def test_written_in_milliseconds_with_four_digits(milliseconds: float, text: str) -> None:
    assert in_milliseconds(milliseconds) == text


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0.0123, "12.3 us"),
        (0.5, "500 us"),
        (0.99949, "999 us"),
        (0.9996, "1 ms"),
        (1.0, "1 ms"),
        (1.2345, "1.23 ms"),
        (23.456, "23.5 ms"),
        (999.4, "999 ms"),
        (999.6, "1 s"),
        (1234.0, "1.23 s"),
        (1.5e6, "1500 s"),
    ],
)
def test_written_with_three_digits_and_the_unit_that_reads_best(milliseconds: float, text: str) -> None:
    assert format_latency(milliseconds) == text


@given(st.floats(1e-3, 1e6))
def test_what_is_written_can_be_read(milliseconds: float) -> None:
    assert parse_latency(format_latency(milliseconds)) == pytest.approx(milliseconds, rel=5.1e-3)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3h", 10_800),
        ("90min", 5400),
        ("45m", 2700),
        ("2h30m", 9000),
        ("1h 30min 15s", 5415),
        ("1.5h", 5400),
        ("90s", 90),
        ("2D", 172_800),
    ],
)
def test_times_with_units(text: str, seconds: float) -> None:
    assert parse_span(text) == seconds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3", "'3' is not a time; write it with its units"),
        ("", "is not a time"),
        ("h", "is not a time"),
        ("-3h", "is not a time"),
        ("1h30", "is not a time"),
        ("30m2h", "is not a time"),
        ("1h1h", "is not a time"),
        ("3 fortnights", "unknown unit 'fortnights'"),
        ("0min", "must be more than nothing"),
        ("1e9h", "unknown unit 'e'"),
    ],
)
def test_other_times_are_refused(text: str, message: str) -> None:
    with pytest.raises(UnitError, match=message):
        parse_span(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [("2GB", 2 * 10**9), ("500 mb", 5 * 10**8), ("1.5GiB", 3 * 2**29), ("1kB", 1000), ("0.5tib", 2**39)],
)
def test_sizes_of_memory_with_units(text: str, count: int) -> None:
    assert parse_memory(text) == count


@pytest.mark.parametrize("text", ["2", "", "GB", "-1GB", "2GB3MB", "2 bytes", "0GB", "1e12TB"])
def test_other_sizes_of_memory_are_refused(text: str) -> None:
    with pytest.raises(UnitError, match="size of memory"):
        parse_memory(text)
