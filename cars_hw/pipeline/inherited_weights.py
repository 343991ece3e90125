"""The weights that the training of a network takes from the SuperNet of its run."""

from __future__ import annotations

from cars_hw.evolution.checkpoint import supernet_weights
from cars_hw.nn.network import Network
from cars_hw.nn.supernet import SuperNet
from cars_hw.pipeline.records import RunConfiguration
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.space.network_spec import NetworkSpec


def has_shared_weights(configuration: RunConfiguration, spec: NetworkSpec) -> bool:
    """Return whether the SuperNet of a run has weights for networks of ``spec``."""
    if configuration.proxy or not configuration.training.trains:
        return False
    if configuration.sizes is not None:
        return configuration.sizes.has(spec)
    own = (configuration.supernet_channels, configuration.supernet_layers) == (None, None)
    return own and spec == configuration.network


def inherit(run: RunFolder, network: Network) -> bool:
    """Copy the SuperNet's weights to ``network`` if it has some of its size; return whether it has."""
    configuration = run.configuration
    if not has_shared_weights(configuration, network.spec) or not run.checkpoint.is_file():
        return False
    supernet = SuperNet(configuration.network, configuration.training.share)
    supernet.load_state_dict(supernet_weights(run.checkpoint))
    supernet.hand_over(network)
    return True
