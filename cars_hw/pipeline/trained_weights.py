"""The weights of trained networks, read from a run."""

from __future__ import annotations

from pathlib import Path

from cars_hw.errors import RunError
from cars_hw.nn.network import Network
from cars_hw.pipeline.networks import TrainedNetwork
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.training.weights import read_weights


def load_trained(run: RunFolder, trained: TrainedNetwork) -> Network:
    """Return the trained network with its weights, in eval mode.

    Raises:
        RunError: the weights are missing, damaged, or of another network.
    """
    return _loaded(trained, run.weights_path(trained.name), trained.weights_digest)


def load_last(run: RunFolder, trained: TrainedNetwork) -> Network:
    """Return the trained network with the weights after its last epoch, in eval mode.

    Raises:
        RunError: the weights are missing, damaged, or of another network.
    """
    if trained.last_weights_digest is None:
        return load_trained(run, trained)
    return _loaded(trained, run.last_weights_path(trained.name), trained.last_weights_digest)


def _loaded(trained: TrainedNetwork, path: Path, expected: str) -> Network:
    network = Network(trained.spec, trained.genotype)
    weights = read_weights(path, expected)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise RunError(f"the weights {path} are of another network", remedy="train-again") from error
    return network.eval()
