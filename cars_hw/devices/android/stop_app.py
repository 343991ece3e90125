"""Ending the app of ``benchmark_model``: at the end of a measurement, or at the next contact."""

from __future__ import annotations

from typing import Final

PACKAGE: Final = "org.tensorflow.lite.benchmark"

STOP_APP: Final = f"""\
stop_app() {{
  [ -f FOLDER/ear ] || return 0
  ear=$(line_of FOLDER/ear)
  # The number may be that of another program since, or of a shell that is about to become the reader.
  for look in 1 2 3 4 5; do
    line=
    {{ line=$(cat "/proc/$ear/cmdline"); }} 2>/dev/null
    case $line in
      "") break ;;
      *logcat*) kill -9 "$ear" 2>/dev/null; break ;;
    esac
    sleep 0.1 >/dev/null 2>&1
  done
  am force-stop {PACKAGE} >/dev/null 2>&1
  rm -f FOLDER/ear
}}"""
"""Shell text of the function ``stop_app``. The file ``ear`` in the folder FOLDER has the number of the process that
reads the log; it is there until the app has been stopped."""
