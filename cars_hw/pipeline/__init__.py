"""Runs: a folder of plain files that a search writes, and the steps that continue from it.

- :mod:`~cars_hw.pipeline.run_folder`: the files and their formats;
- :mod:`~cars_hw.pipeline.search`, :mod:`~cars_hw.pipeline.train`, :mod:`~cars_hw.pipeline.export`,
  :mod:`~cars_hw.pipeline.verify`: the steps, one a module.
"""
