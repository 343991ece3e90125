"""From a trained network to a file that a device runs.

- :mod:`~cars_hw.export.graph`: the few plain layers that every network of the space is made of;
- :mod:`~cars_hw.export.lower`: a network, or one of its pieces, as such a graph;
- :mod:`~cars_hw.export.format` and :mod:`~cars_hw.export.formats`: what a format is, and the table of formats;
- :mod:`~cars_hw.export.onnx` and :mod:`~cars_hw.export.tflite`: the formats; a module each writes a graph;
- :mod:`~cars_hw.export.write`: a graph, or the network of a genotype, as a model file to be measured;
- :mod:`~cars_hw.export.parity`: whether the file computes what the network computes;
- :mod:`~cars_hw.export.quantize` and :mod:`~cars_hw.export.int8_refinement`: the model in int8;
- :mod:`~cars_hw.export.card`: the JSON that lies beside an exported model;
- :mod:`~cars_hw.export.classify`: an image through a model, by its card;
- :mod:`~cars_hw.export.export`: all of it in one step; a file is written only if it is right.

The package imports nothing: reading a card takes no torch.
"""
