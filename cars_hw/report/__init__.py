"""The report: one HTML page about a finished run, read from its folder alone."""
