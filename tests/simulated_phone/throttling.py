"""A canned runner on a clock of its own: what a model takes depends on the second, on the warm-up and on the heat.

The truth is known: a model takes as many microseconds as its file has bytes, times the factor of the present state.
A session takes no real time, but moves the phone's clock on. The program is awk, which every machine has.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cars_hw.measurement.schedule import Clock
from simulated_phone.phone import Phone

BEGAN = datetime(2000, 1, 1, tzinfo=UTC)
START_S = 0.02
"""What it takes to start the tool."""

PROGRAM = """
function at(second, i, best) {
  # Phases are "begin from to seconds": the factor goes from the one to the other, and stays.
  best = 1
  for (i = 1; i <= phases; i++) if (second >= begin[i])
    best = from[i] + (to[i] - from[i]) * (second - begin[i] < lasts[i] ? (second - begin[i]) / lasts[i] : 1)
  if (period > 0 && int(second / period) % 2 == 1) best *= other
  # Heat: load brings it to 1, rest to 0; above a half, the clock falls.
  return best * (1 + hot * (heat > 0.5 ? (heat - 0.5) / 0.5 : 0))
}
FILENAME ~ /weather$/ {
  if ($1 == "phase") { phases++; begin[phases] = $2; from[phases] = $3; to[phases] = $4; lasts[phases] = $5 }
  if ($1 == "alternate") { period = $2; other = $3 }
  if ($1 == "heat") { hot = $2; constant = $3 }
  next
}
FILENAME ~ /second$/ { second = $1; next }
FILENAME ~ /warmth$/ { warm_at = $1; heat = $2 }
END {
  if (constant > 0) heat *= exp(-(second - warm_at) / constant)
  low = at(second + START_S)
  took = warmup > 0 ? warmup : us * low / 1e6
  # The clock rises for the first milliseconds of a session.
  rise = took < ramp ? 1 + 0.8 * (1 - took / ramp) : 1
  measured = least > runs * us / 1e6 ? least : runs * us / 1e6
  second += START_S + took + measured
  if (constant > 0) heat = 1 - (1 - heat) * exp(-(took + measured) / constant)
  high = at(second)
  if (low > high) { swap = low; low = high; high = swap }
  low = int(us * low * rise + 0.5); high = int(us * high * rise + 0.5) + 9; mean = (low + high) / 2
  count = int(measured * 1e6 / mean) + 1; if (count < 2) count = 2
  numbers = sprintf("first=%d curr=%d min=%d max=%d avg=%g std=1 p5=%d median=%g p95=%d", low, high, low, high,
    mean, low, mean, high)
  printf "count=2 %s\\ncount=%d %s\\n", numbers, count, numbers
  printf "Inference timings in us: Init: 1, First inference: %d, Warmup (avg): %g, Inference (avg): %g\\n", low,
    mean, mean
  printf "%.3f\\n", second > SECOND
  printf "%.3f %.6f\\n", second, heat > WARMTH
  printf "%.3f\\n", second >> ENDS
}
"""

RUNNER = """\
runs=1 least=0 warmup=0
for flag in "$@"; do
  case $flag in
    --graph=*) graph=${flag#--graph=} ;;
    --num_runs=*) runs=${flag#--num_runs=} ;;
    --min_secs=*) least=${flag#--min_secs=} ;;
    --warmup_min_secs=*) warmup=${flag#--warmup_min_secs=} ;;
  esac
done
PATH=/usr/bin:/bin
us=$(wc -c < "$graph")
exec awk -v us=$us -v runs=$runs -v least=$least -v warmup=$warmup -f FOLDER/throttling.awk \
  FOLDER/weather FOLDER/second FOLDER/warmth
"""


class Throttling:
    """Puts the runner on ``phone``, which then has a clock of its own: seconds since it was switched on.

    ``ramp_s`` is how long the clock of a core rises at the begin of a session.
    """

    def __init__(self, phone: Phone, ramp_s: float = 0.0) -> None:
        self._folder = phone.folder
        words = {
            "START_S": str(START_S),
            "SECOND": f'"{phone.folder}/second"',
            "WARMTH": f'"{phone.folder}/warmth"',
            "ENDS": f'"{phone.folder}/ends"',
            "ramp": str(ramp_s or 1e-9),
        }
        program = PROGRAM
        for word, value in words.items():
            program = program.replace(word, value)
        (phone.folder / "throttling.awk").write_text(program)
        (phone.folder / "weather").write_text("")
        self._file("second", 0.0)
        (phone.folder / "warmth").write_text("0 0\n")
        phone.install(RUNNER.replace("FOLDER", str(phone.folder)))
        self._told = 0

    def phase(self, begin: float, begins_at: float, ends_at: float, seconds: float = 1e-9) -> None:
        """From the second ``begin`` on, the factor goes from ``begins_at`` to ``ends_at`` over ``seconds``."""
        self._add(f"phase {begin} {begins_at} {ends_at} {seconds}")

    def alternate(self, seconds: float, factor: float) -> None:
        """Every ``seconds`` the phone goes to the other of two states, of which one has ``factor``."""
        self._add(f"alternate {seconds} {factor}")

    def heats(self, share: float, seconds: float) -> None:
        """Load heats the phone with this time constant, until it takes ``share`` longer; rest cools it again."""
        self._add(f"heat {share} {seconds}")

    @property
    def clock(self) -> Clock:
        """The phone's clock."""
        return Clock(self._now, self._sleep)

    def now(self, timespec: str = "seconds") -> str:
        """Return the present time; as the time of a sample, the end of the next session that nobody was told of."""
        if timespec == "seconds":
            return (BEGAN + timedelta(seconds=self._now())).isoformat(timespec="seconds")
        ends = (self._folder / "ends").read_text().split()
        ended = float(ends[self._told])
        self._told += 1
        return (BEGAN + timedelta(seconds=ended)).isoformat(timespec="milliseconds")

    def _now(self) -> float:
        return float((self._folder / "second").read_text())

    def _sleep(self, seconds: float) -> None:
        self._file("second", self._now() + seconds)

    def _file(self, name: str, value: float) -> None:
        (self._folder / name).write_text(f"{value:.3f}\n")

    def _add(self, line: str) -> None:
        with (self._folder / "weather").open("a") as file:
            file.write(f"{line}\n")


def truth_us(model: Path, factor: float = 1.0) -> float:
    """Return what ``model`` takes in microseconds in a state with ``factor``."""
    return factor * model.stat().st_size
