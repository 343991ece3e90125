"""The kernels of a search on a GPU are loaded while its images are read."""

from __future__ import annotations

import torch

from cars_hw.nn.fused import has_triton
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.space.search_space import SearchSpace
from cars_hw.training.determinism import prepare_deterministic
from cars_hw.training.kernel_loading import KernelLoading, passes_of_all_kernels


def loading_kernels(plan: SearchPlan, device: str) -> KernelLoading:
    """Return what loads the kernels of the search of ``plan`` on ``device``; it has no steps on a CPU.

    The images of a proxy are not known before they are read, and standalone architectures and blocks have kernels
    of their own: they load theirs in the first epoch.
    """
    space = plan.space
    if not device.startswith("cuda") or plan.proxy or plan.standalone_epochs or not isinstance(space, SearchSpace):
        return KernelLoading(())
    training, spec = plan.preset.training, plan.network
    prepare_deterministic(training.deterministic)
    if plan.sizes is None:
        spec = spec.with_changes(channels=plan.preset.supernet_channels, layers=plan.preset.supernet_layers)
    return KernelLoading(passes_of_all_kernels(space, spec, training, torch.device(device)))


def what_is_waited_for(device: str, loading: KernelLoading, waited: float) -> list[str]:
    """Return lines about the kernels of a search on ``device``; after the images, it ``waited`` so many seconds."""
    if not device.startswith("cuda"):
        return []
    if loading.has_steps and loading.failed is None:
        return [f"The GPU loaded its kernels while the images were read, and for {waited:.0f} s after that."]
    ours = ", and compiles those of cars-hw, which later searches find compiled" if has_triton() else ""
    early = "" if loading.failed is None else f" They could not be loaded earlier: {loading.failed}."
    return [f"The first epoch takes longer: the GPU loads its kernels{ours}.{early}"]
