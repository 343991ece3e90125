"""A phone whose models run in an app in the foreground: the APK of ``benchmark_model``, if it is installed.

A process of the adb shell differs from an app: it is in another group of the scheduler, which gets other cores and
lower clocks. The app of TensorFlow Lite (``org.tensorflow.lite.benchmark``) has no window. It runs a model when it
is started, prints to the log of the phone what ``benchmark_model`` prints, and ends.
"""

from __future__ import annotations

import re
import secrets
from typing import Any, Final

from cars_hw.config.measurement import MeasurePlan
from cars_hw.devices.android import benchmark_model
from cars_hw.devices.android.cores import CPUS
from cars_hw.devices.android.device import HERE, AndroidDevice
from cars_hw.devices.android.phone import FOLDER, Phone, PhoneState
from cars_hw.devices.android.settings_record import change_text, restore_text
from cars_hw.devices.android.stop_app import PACKAGE, STOP_APP
from cars_hw.devices.remote import SessionResult
from cars_hw.devices.remote_machine import Place, Tool
from cars_hw.errors import DeviceStateError, InputError, RunnerError

ACTIVITY: Final = f"{PACKAGE}/.BenchmarkModelActivity"
TOP: Final = "top-app"
"""The group of the scheduler for the app that the user sees."""

START_S: Final = 10
"""How long the app may take to start, in seconds."""

# A line of the log is "DATE TIME PROCESS THREAD LEVEL TAG: TEXT". The app is the process that has begun with the
# very arguments of this session after its mark: the log has lines of other sessions and of other programs, too.
# While the app runs, the shell reads the file by itself: a program for each look would disturb the measurement.
FUNCTIONS: Final = """\
listen() {
  passed= app= ended= failed=
  while read -r day time process thread level rest; do
    case $rest in *"$mark") passed=yes ;; esac
    [ -n "$passed" ] || continue
    case $rest in *"benchmark with args: $*") app=$process ;; esac
    [ -n "$app" ] && [ "$process" = "$app" ] || continue
    case $rest in *"Inference (avg)"*|*"Average inference timings"*) ended=yes ;; esac
    case $level in E|F) failed=yes ;; esac
  done < heard
}
look() {
  core_of "$app"
  [ -n "$core" ] || return 0
  first=
  { read -r first < "CPUS/cpu$core/cpufreq/scaling_cur_freq"; } 2>/dev/null
  ran="$core ${first:-?}"
  case " $seen " in *" $core "*) ;; *) seen="$seen $core" ;; esac
}
deafen() { kill -9 $ear 2>/dev/null; wait $ear 2>/dev/null; }
pause() { sleep 0.1 >/dev/null 2>&1; }
app_session() {
  mark=$1
  shift
  logcat -v threadtime -T 1 -s cars-hw:V tflite:V tflite_BenchmarkModelActivity:V AndroidRuntime:E libc:F \
    </dev/null >heard 2>&1 &
  ear=$!
  echo $ear > HERE/ear
  tries=0
  listen "$@"
  while [ -z "$passed" ]; do
    tries=$((tries + 1))
    if [ $tries -gt 30 ] || ! kill -0 $ear 2>/dev/null; then echo "@app deaf"; cat heard; deafen; return 95; fi
    log -t cars-hw "$mark" >/dev/null 2>&1
    pause
    listen "$@"
  done
  answer=$(am start -S -n ACTIVITY --es args "$*" 2>&1)
  case $answer in *Error*|*Exception*) echo "@app refused"; echo "$answer"; deafen; return 94 ;; esac
  tries=0 late=0 status=0 group= ran= seen=
  while :; do
    present=
    { [ -n "$app" ] && read -r present < "/proc/$app/cpuset"; } 2>/dev/null
    gone=
    [ -n "$app" ] && [ ! -d "/proc/$app" ] && gone=yes
    listen "$@"
    [ -n "$ended" ] && break
    # Read before the app had ended: afterwards it is in the group of what nobody sees.
    [ -n "$present" ] && group=$present
    [ -n "$app" ] && look
    if [ -n "$gone" ]; then echo "@app killed"; status=93; break; fi
    if ! kill -0 $ear 2>/dev/null; then echo "@app deaf"; status=95; break; fi
    if [ -n "$failed" ]; then
      late=$((late + 1))
      [ $late -gt 20 ] && { status=1; break; }
    fi
    if [ -z "$app" ]; then
      tries=$((tries + 1))
      [ $tries -gt TRIES ] && { echo "@app unstarted"; status=92; break; }
    fi
    pause
  done
  [ -n "$group" ] && echo "@app group $group"
  [ -n "$ran" ] && echo "@app ran $ran of$seen"
  deafen
  passed=
  while read -r day time process thread level rest; do
    case $rest in *"$mark") passed=yes ;; esac
    [ -n "$passed" ] && [ -n "$app" ] && [ "$process" = "$app" ] && echo "${rest#*: }"
  done < heard
  return $status
}
open_to_app() {
  # A lock screen without a code goes away.
  wm dismiss-keyguard >/dev/null 2>&1
  # The app reads the models, and is another user than the shell.
  chmod 755 HERE . >/dev/null 2>&1
  chmod 644 ./*.tflite >/dev/null 2>&1
}"""

_REASONS: Final = {
    "deaf": "the log of the phone cannot be read, or is switched off; switch it on in Developer options (Logger "
    "buffer sizes), on Huawei phones by the code *#*#2846579#*#*",
    "refused": "the phone does not start the app",
    "unstarted": f"the app has not begun within {START_S} s; unlock the phone, keep its screen on, and allow the "
    "app to start",
    "killed": "the app was closed while it ran; leave the phone alone, and switch battery optimisation off for it",
}


class AppDevice(AndroidDevice):
    """The phone behind ``shell``, whose models run in an app in the foreground.

    The system chooses the cores, and the phone is not in fixed-performance mode, as for any app. The clock of a
    session is that of the core on which the app was seen last.
    """

    place = Place(FOLDER, restore_text(HERE, STOP_APP), f"{change_text(HERE, fixed=False)}\nopen_to_app")
    tool_remedy = "install-app"
    functions = (
        FUNCTIONS.replace("HERE", HERE)
        .replace("ACTIVITY", ACTIVITY)
        .replace("TRIES", str(10 * START_S))
        .replace("CPUS", CPUS)
    )
    unpinned = "the system chooses the cores of an app"
    runs_as = "an app in the foreground"

    _group: str | None = None
    """The group of the scheduler in which the app ran last; None before."""
    _app_cores: frozenset[int] = frozenset()
    """The cores on which the app was seen."""

    def conditions(self) -> dict[str, Any]:
        """Return the conditions; ``scheduling_group`` and ``app_cores`` are those of the app once it has run."""
        found = super().conditions()
        return {**found, "device_identity": f"{found['device_identity']}+app", **self.learnt()}

    def learnt(self) -> dict[str, Any]:
        """Return what it has learnt while it measured; see :func:`cars_hw.devices.protocol.learnt_by`."""
        return {**super().learnt(), "scheduling_group": self._group, "app_cores": sorted(self._app_cores)}

    def energy_meter(self) -> str:
        """Raise an InputError: an app does not run without a pause."""
        raise InputError(f"{self.name}: the energy of an app is not measured; measure the phone without +app")

    def _read(self) -> tuple[Phone, PhoneState]:
        phone, state = super()._read()
        # What belongs to an app cannot be pinned by the shell.
        return phone._replace(can_pin=False), state

    def _look_for_tool(self) -> Tool:
        answer = self._shell.call(
            f'f=$(pm path {PACKAGE} 2>/dev/null); f=${{f##*package:}}; [ -n "$f" ] || exit 1; echo "@app $f"; '
            'sha256sum "$f" 2>/dev/null || sha1sum "$f" 2>/dev/null || wc -c "$f"'
        )
        found = re.search(r"^@app (/\S+)", answer.output, re.MULTILINE)
        if found is None:
            raise RunnerError(f"{self._shell.where} does not have the app {PACKAGE}", remedy=self.tool_remedy)
        digest = re.search(r"^\s*([0-9a-f]+)\s+/", answer.output, re.MULTILINE)
        known = digest[1][:12] if digest else "of unknown content"
        return Tool(None, found[1], ("app_session",), known, "the app of benchmark_model")

    def _words(self, name: str, plan: MeasurePlan) -> list[str]:
        flags = benchmark_model.flags(self._path(name), plan, self._threads, self._delegate)
        return [*self._find_tool().command, f"cars-hw-{secrets.token_hex(6)}", *flags]

    def _placed(self, ran: SessionResult) -> SessionResult:
        problem = re.search(r"^@app (deaf|refused|unstarted|killed)$", ran.output, re.MULTILINE)
        if problem is not None:
            more = ran.output.partition(problem[0])[2].strip()
            detail = f": {' '.join(more.split())[-200:]}" if problem[1] == "refused" else ""
            raise DeviceStateError(f"{self._shell.where}: {_REASONS[problem[1]]}{detail}", remedy="resume")
        group = re.search(r"^@app group (\S+)$", ran.output, re.MULTILINE)
        if group is None:
            self._warn("it does not tell whether the app ran in the foreground")
            return self._with_own_clock(ran)
        self._group = group[1]
        if TOP not in self._group:
            raise DeviceStateError(
                f"{self._shell.where}: the app ran in the group {self._group} of the scheduler, not in {TOP}: it "
                "was not in the foreground; unlock the phone, keep its screen on, and close what lies over the app",
                remedy="resume",
            )
        return self._with_own_clock(ran)

    def _with_own_clock(self, ran: SessionResult) -> SessionResult:
        """Return ``ran`` with the clock of the core that the app was on, which the shell is not."""
        told = re.search(r"^@app ran \d+ (\S+) of((?: \d+)+)$", ran.output, re.MULTILINE)
        if told is None:
            return ran._replace(clock_mhz=None)
        self._app_cores |= {int(core) for core in told[2].split()}
        return ran._replace(clock_mhz=int(told[1]) / 1000 if told[1].isdecimal() else None)
