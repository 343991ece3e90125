"""The memory that LiteRT takes for the activations of a TFLite model, as its tensors tell."""

from __future__ import annotations

from pathlib import Path


def runtime_activation_bytes(model: Path) -> int:
    """Return the bytes between the first and the last activation in the arena of LiteRT for the file ``model``.

    The kernels are LiteRT's own, without XNNPACK, which keeps activations in memory of its own.

    Raises:
        ValueError: the file is no TFLite model.
    """
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    content = model.read_bytes()
    kind = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    # With two threads, convolutions take no memory of their own in the arena.
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=kind, num_threads=2)
    interpreter.allocate_tensors()
    opened = schema.ModelT.InitFromPackedBuf(content)
    places = []
    for number, tensor in enumerate(opened.subgraphs[0].tensors):
        stored = opened.buffers[tensor.buffer]
        # The quantiser keeps constants behind the model, at an offset.
        if stored.data is None and not stored.offset:
            values = interpreter.tensor(number)()
            places.append((values.__array_interface__["data"][0], values.nbytes))
    return int(max(place + size for place, size in places) - min(places)[0])
