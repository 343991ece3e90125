"""A simulated phone with a tool that is a shell script, and the plan by which tests measure on it."""

from __future__ import annotations

from simulated_phone import Phone

from cars_hw.config.measurement import MeasurePlan

PLAN = MeasurePlan(sessions=2, min_runs=5, min_seconds=0.0, warmup_runs=1, warmup_seconds=0.0, patience_seconds=0)

# Prints what the tool prints: of a model so many microseconds as its file has bytes, then whatever FAULT does.
CANNED = """\
for flag in "$@"; do case $flag in --graph=*) graph=${flag#--graph=} ;; esac; done
us=$(wc -c < "$graph")
echo "count=2 first=$us curr=$((us + 9)) min=$us max=$((us + 9)) avg=$us.5 std=1"
FAULT
echo "count=5 first=$us curr=$((us + 9)) min=$us max=$((us + 9)) avg=$us.5 std=1"
echo "Inference timings in us: Init: 1, First inference: $us, Warmup (avg): $us.5, Inference (avg): $us.5"
"""


def canned(phone: Phone, fault: str = ":") -> None:
    phone.install(CANNED.replace("FAULT", fault))
