"""From a trained network to a file that a device runs.

- :mod:`~cars_hw.export.graph`: the few plain layers that every network of the space is made of;
- :mod:`~cars_hw.export.lower`: a network, or one of its pieces, as such a graph;
- :mod:`~cars_hw.export.onnx_writer` and :mod:`~cars_hw.export.tflite_writer`: a graph as a model file;
- :mod:`~cars_hw.export.parity`: whether the file computes what the network computes;
- :mod:`~cars_hw.export.card`: the JSON that lies beside an exported model;
- :mod:`~cars_hw.export.classify`: an image through a model, by its card;
- :mod:`~cars_hw.export.export`: all of it in one step, and nothing written unless it is right.

Nothing is imported here: who only reads a card does not wait for torch.
"""
