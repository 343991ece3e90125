"""A battery with the counters of a maker, on a clock of its own: the energy of every model is known.

The tool is canned: a model takes as many microseconds as its file has bytes, and the phone then takes so many watts
more than at rest. Two seconds of the script's sleep take no real time, but move the phone's clock and its counters
on. The programs are shell and awk, which every machine has.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from simulated_phone.phone import Phone

VOLTS = 3.85
START_S = 0.6
"""What it takes to start the tool, in which the phone takes half of what the model takes."""

TICK = """
FILENAME ~ /state$/ { second = $1; joules = $2; next }
FILENAME ~ /busy$/ { begin = $1; runs_from = $2; deadline = $3; watts = $4; next }
function part(from, to, a, b) {
  a = from > second ? from : second
  b = to < after ? to : after
  return b > a ? b - a : 0
}
END {
  after = second + add
  joules += IDLE * add
  if (deadline) joules += watts * (part(runs_from, deadline) + 0.5 * part(begin, runs_from))
  present = IDLE + (deadline && after >= runs_from && after < deadline ? watts : 0)
  second = after
  # The gauge looks at the battery from time to time, and tells whole steps.
  looked = int(second / GAUGE) * GAUGE
  seen = looked >= second - add ? joules - present * (second - looked) : -1
  if (seen >= 0) {
    coulombs = FULL * 0.8 - seen / VOLTS
    printf "%d\\n", (SIGN) * int(coulombs / 3600 / UNIT / STEP) * STEP > NEW "/charge"
  }
  printf "%d\\n", 0 - (SIGN) * int(present / VOLTS / UNIT + 0.5) > NEW "/current"
  printf "%.3f %.9f\\n", second, joules > NEW "/state"
  printf "%.2f 0.00\\n", second + 100 > NEW "/uptime"
}
"""

TOOL = """\
for flag in "$@"; do
  case $flag in
    --graph=*) graph=${flag#--graph=} ;;
    --min_secs=*) least=${flag#--min_secs=} ;;
    --warmup_min_secs=*) warmup=${flag#--warmup_min_secs=} ;;
  esac
done
PATH=/usr/bin:/bin
us=$(wc -c < "$graph")
read -r second rest < HERE/state
awk -v s=$second -v us=$us -v warm=$warmup -v least=$least -v pid=$$ 'BEGIN {
  runs = int(least * 1e6 / us) + 1; warms = int(warm * 1e6 / us) + 1
  runs_from = s + START; deadline = runs_from + (runs + warms) * us / 1e6
  printf "%.6f %.6f %.6f %s %d\\n", s, runs_from, deadline, WATTS, pid > "HERE/busy.new"
  numbers = sprintf("first=%d curr=%d min=%d max=%d avg=%d std=0", us, us, us, us, us)
  printf "count=%d %s\\ncount=%d %s\\n", warms, numbers, runs, numbers
  printf "Inference timings in us: Init: 1, First inference: %d, ", us
  printf "Warmup (avg): %d, Inference (avg): %d\\n", us, us
}'
[ -f HERE/quick ] && exit
mv HERE/busy.new HERE/busy
while [ -f HERE/busy ]; do sleep 0.005; done
"""

SLEEP = """\
[ "$1" = 2 ] || exec /usr/bin/env sleep "$@"
busy=HERE/busy
[ -f $busy ] || busy=
awk -v add=2 -f HERE/tick.awk HERE/state $busy
# At once, for whoever reads meanwhile.
mv HERE/new/* HERE/
[ -n "$busy" ] || exit 0
read -r second rest < HERE/state
read -r begin from deadline watts pid < $busy
awk "BEGIN { exit !($second >= $deadline) }" || exit 0
rm -f $busy
# Until the tool has gone, which the shell then notices at once.
while read -r about < /proc/$pid/stat; do
  case ${about##*) } in Z*) break ;; esac
  sleep 0.005
done 2>/dev/null
exit 0
"""


@dataclass(frozen=True)
class Maker:
    """How a maker tells the battery.

    ``unit`` is that of charge and current (1e-6 or 1e-3), ``volt`` that of the voltage; ``sign`` is -1 if a current
    that discharges is positive and the charge falls below zero. ``step`` is that of the charge in its unit, and
    the gauge looks every ``gauge_s`` seconds. ``files`` are those that the shell may read; without any, only the
    battery service tells the charge.
    """

    unit: float = 1e-6
    volt: float = 1e-6
    sign: int = 1
    step: int = 1
    gauge_s: float = 1.0
    files: tuple[str, ...] = ("charge_counter", "current_now", "voltage_now")
    capacity_mah: int = 4000


class Battery:
    """Puts the tool and the counters of ``maker`` on ``phone``, which takes ``idle_watts`` at rest.

    ``watts`` is an expression of awk for what a model of ``us`` microseconds takes beyond that.
    """

    def __init__(self, phone: Phone, maker: Maker, idle_watts: float = 0.7, watts: str = "2.5") -> None:
        self.phone, self.maker = phone, maker
        here = phone.folder / "gauge"
        supply = phone.folder / "supplies" / "battery"
        (phone.folder / "supplies" / "usb").mkdir(parents=True)
        (here / "new").mkdir(parents=True)
        supply.mkdir()
        self.here, self.supply = here, supply
        self._online = phone.folder / "supplies" / "usb" / "online"
        self.plug(False)
        words = {
            "IDLE": str(idle_watts),
            "GAUGE": str(maker.gauge_s),
            "FULL": str(3.6 * maker.capacity_mah),
            "VOLTS": str(VOLTS),
            "SIGN": str(maker.sign),
            "UNIT": str(maker.unit),
            "STEP": str(maker.step),
            "NEW": f'"{here}/new"',
        }
        tick = TICK
        for word, value in words.items():
            tick = tick.replace(word, value)
        (here / "tick.awk").write_text(tick)
        (here / "state").write_text("0.000 0\n")
        (here / "uptime").write_text("100.00 0.00\n")
        charge = maker.sign * int(0.8 * maker.capacity_mah * 1e-3 / maker.unit / maker.step) * maker.step
        (here / "charge").write_text(f"{charge}\n")
        (here / "current").write_text(f"{-maker.sign * int(idle_watts / VOLTS / maker.unit)}\n")
        told = {"charge_counter": "charge", "current_now": "current"}
        for name in maker.files:
            if name in told:
                (supply / name).symlink_to(here / told[name])
        if "voltage_now" in maker.files:
            (supply / "voltage_now").write_text(f"{round(VOLTS / maker.volt)}\n")
        if maker.files:
            (supply / "capacity").write_text("80\n")
            (supply / "status").write_text("Discharging\n")
        else:
            self._online.unlink()
            phone.battery(usb=False)
            text = phone.folder / "dumpsys-battery"
            text.write_text(text.read_text().replace("voltage: 4236", f"voltage: {round(1e3 * VOLTS)}"))
            service = (phone.folder / "bin" / "dumpsys").read_text()
            # The service has whole microampere-hours, whatever the gauge has.
            service += f'[ "$1" = battery ] && echo "  Charge counter: $(cat {here}/charge)"\n'
            (phone.folder / "bin" / "dumpsys").write_text(service)
        phone.moved |= {"/proc/uptime": here / "uptime", "/sys/class/power_supply": phone.folder / "supplies"}
        sleep = phone.folder / "bin" / "sleep"
        sleep.unlink()
        tool = TOOL.replace("WATTS", f"({watts})").replace("START", str(START_S))
        phone._command("sleep", SLEEP.replace("HERE", str(here)))
        phone.install(tool.replace("HERE", str(here)))

    def plug(self, plugged: bool) -> None:
        """Put it on a charger, or take it off."""
        self._online.write_text(f"{int(plugged)}\n")

    def meters(self, metering: bool) -> None:
        """Let the tool take its time on the phone's clock, which only a meter moves on, or none at all."""
        quick = self.here / "quick"
        if metering:
            quick.unlink(missing_ok=True)
        else:
            quick.touch()

    def joules(self) -> float:
        """Return what it has given so far."""
        return float((self.here / "state").read_text().split()[1])


def truth_mj(model: Path, watts: float) -> float:
    """Return the energy of a run of ``model`` beyond rest, in millijoules, with so many ``watts`` beyond rest."""
    return watts * model.stat().st_size / 1e3
