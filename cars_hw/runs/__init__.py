"""Runs: a folder of plain files that a search leaves, and the steps that go on from it.

- :mod:`~cars_hw.runs.folder`: the files and their formats;
- :mod:`~cars_hw.runs.search`, :mod:`~cars_hw.runs.train`, :mod:`~cars_hw.runs.export`,
  :mod:`~cars_hw.runs.verify`: the steps, one a module.
"""
