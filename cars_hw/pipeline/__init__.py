"""Runs: a folder of plain files that a search writes, and the steps that continue from it.

- :mod:`~cars_hw.pipeline.run_folder`: where the files lie; :mod:`~cars_hw.pipeline.run_formats` has their formats,
  :mod:`~cars_hw.pipeline.records` and :mod:`~cars_hw.pipeline.networks` what they hold;
- :mod:`~cars_hw.pipeline.search`, :mod:`~cars_hw.pipeline.train`, :mod:`~cars_hw.pipeline.export`,
  :mod:`~cars_hw.pipeline.verify`: the steps, one a module;
- :mod:`~cars_hw.pipeline.plan`: what a search is to do; :mod:`~cars_hw.pipeline.prepare_search`,
  :mod:`~cars_hw.pipeline.final_stage`, :mod:`~cars_hw.pipeline.front`, :mod:`~cars_hw.pipeline.confirm_front`: its
  parts, in their order;
- :mod:`~cars_hw.pipeline.search_cost`: its cost in multiply-adds; :mod:`~cars_hw.pipeline.pace`,
  :mod:`~cars_hw.pipeline.estimate`, :mod:`~cars_hw.pipeline.within`: its time.
"""
