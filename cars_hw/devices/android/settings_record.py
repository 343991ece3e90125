"""The settings of a phone that a measurement changes: recorded before, restored from the record.

No setting is changed until its old value has been written on the phone, read back, and is a plausible value. The
file and its name are on the storage by then, for a phone that loses its power the next moment. The record stays
until the phone reports the old value again, so that a script that was killed, a phone that was started again or a
computer that went off are made good at the next contact.

``stay_on_while_plugged_in`` is a sum of 1 (charger), 2 (USB), 4 (wireless) and 8 (dock), or ``null`` if it was
never set. Android reports nowhere whether the fixed-performance mode is on; it is off after every start of a phone,
and a measurement leaves it off.
"""

from __future__ import annotations

from typing import Final

RECORD: Final = "cars-hw-1"
"""The first word of a record: its format."""

FIXED: Final = "fixed-performance-mode"
"""What a script reports if the phone has accepted this mode."""

# A phone may print warnings of its linker before a value, also on standard output.
RESTORE: Final = """\
stay_on() {
  settings get global stay_on_while_plugged_in 2>/dev/null | while read -r line; do
    case $line in WARNING:*|'') ;; *) echo "$line" ;; esac
  done
}
is_plausible() { case $1 in null|[0-9]|1[0-5]) return 0 ;; esac; return 1; }
restore() {
  stop_app
  [ -f FOLDER/before ] || return 0
  version= stay= end=
  { read -r version stay end < FOLDER/before; } 2>/dev/null
  if [ "$version $end" != "cars-hw-1 end" ] || ! is_plausible "$stay"; then
    note "the record of its settings is damaged, and they are not restored; check Stay awake in Developer options"
    rm -f FOLDER/before
    return 0
  fi
  case $stay in
    null) settings delete global stay_on_while_plugged_in ;;
    *) settings put global stay_on_while_plugged_in "$stay" ;;
  esac >/dev/null 2>&1
  cmd power set-fixed-performance-mode-enabled false >/dev/null 2>&1
  present=$(stay_on)
  if [ "$present" = "$stay" ]; then rm -f FOLDER/before; return 0; fi
  note "stay_on_while_plugged_in was $stay, is $present, and cannot be restored; the next contact tries again"
  return 1
}"""

CHANGE: Final = """\
change() {
  input keyevent KEYCODE_WAKEUP >/dev/null 2>&1
  restore || return 0
  stay=$(stay_on)
  if ! is_plausible "$stay"; then
    note "its settings are left as they are, because it reports no value of stay_on_while_plugged_in: $stay"
    return 0
  fi
  { echo "cars-hw-1 $stay end" > FOLDER/before.new; } 2>/dev/null
  { fsync FOLDER/before.new || sync; } 2>/dev/null
  if [ "$(line_of FOLDER/before.new)" != "cars-hw-1 $stay end" ] ||
    ! mv FOLDER/before.new FOLDER/before 2>/dev/null; then
    rm -f FOLDER/before.new
    note "its settings are left as they are, because their values cannot be written to FOLDER"
    return 0
  fi
  { fsync FOLDER || sync; } 2>/dev/null
  svc power stayon true >/dev/null 2>&1
  case "$stay $(stay_on)" in
    "null null"|"0 0") note "it does not let the screen stay on; allow it in Developer options (some makers: USB \
debugging, Security settings), or keep the screen on by hand" ;;
  esac
  MODE
}
change"""

MODE: Final = (
    'if cmd power set-fixed-performance-mode-enabled true >/dev/null 2>&1; then echo "@cars-hw has FIXED"; fi'
)


def restore_text(folder: str, stop_app: str) -> str:
    """Return the shell function ``restore`` for the record in ``folder``; it needs ``note`` and ``line_of``.

    ``stop_app`` defines the function of this name, which ends what a measurement has left running.
    """
    return f"{stop_app}\n{RESTORE}".replace("FOLDER", folder)


def change_text(folder: str, *, fixed: bool = True) -> str:
    """Return shell text that records the settings in ``folder`` and changes them; with ``fixed`` also the mode.

    It needs ``restore``.
    """
    text = CHANGE.replace("MODE", MODE if fixed else ":")
    return text.replace("FOLDER", folder).replace("FIXED", FIXED)
