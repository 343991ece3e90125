"""``python -m cars_hw``, the same as ``cars-hw``."""

from cars_hw.cli.main import main

main(prog_name="cars-hw")
