"""Tasks that do not depend on each other, worked on by processes of this machine or by a cluster.

:func:`cars_hw.executors.spread.spread` is the seam: it takes a function of a module and tasks that are plain data.
``local`` are processes of this machine. The other executors hand each task to an engine
(:mod:`cars_hw.executors.engine`), whose worker does it in a process of its own (:mod:`cars_hw.executors.agent`).
Results are files in the run folder; what comes back through the engine is only how a task ended.
"""
