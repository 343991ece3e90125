"""Trackers of experiments: TensorBoard, MLflow, Weights & Biases, or one of another package.

:mod:`cars_hw.tracking.trackers` opens them by name, and :mod:`cars_hw.tracking.follow` has the callbacks that hand
them what a search, a training or a profile comes to. All of them write to files of this machine, unless the user
names a server.
"""
