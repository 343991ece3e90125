"""A search on a GPU loads its kernels beside its images, and says what it waited for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cars_hw.config.data import DataSource
from cars_hw.config.presets import PRESETS
from cars_hw.data import DataBundle
from cars_hw.pipeline import early_kernels, prepare_search, search_images
from cars_hw.pipeline.early_kernels import loading_kernels, what_is_waited_for
from cars_hw.pipeline.plan import SearchPlan
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.progress import silent
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.training.kernel_loading import KernelLoading
from cars_hw.training.process_group import SINGLE_PROCESS

SPEC = NetworkSpec(4, 3, (8, 8), 1, classes=3)


def plan(images: Path) -> SearchPlan:
    return SearchPlan(DataSource(str(images)), SPEC, PRESETS["quick"], costs=("parameters",))


def test_only_a_gpu_loads_kernels_and_a_proxy_loads_them_later(images: Path) -> None:
    made = plan(images)
    assert not loading_kernels(made, "cpu").has_steps
    assert loading_kernels(made, "cuda").has_steps
    assert not loading_kernels(replace(made, proxy=True), "cuda").has_steps


def test_the_kernels_are_loaded_before_the_images_are_there(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    loading = KernelLoading([lambda: order.append("kernels")] * 3)
    monkeypatch.setattr(prepare_search, "loading_kernels", lambda *_: loading)
    load = search_images.load_new

    def slow(*given: object) -> object:
        # The images are not there before the kernels are loaded: one after the other, this would not end.
        loading._thread.join(20)
        order.append("images")
        return load(*given)  # type: ignore[arg-type]

    def build(_plan: object, data: DataBundle, *_: object, **__: object) -> str:
        order.append("search")
        return data.name

    monkeypatch.setattr(search_images, "load_new", slow)
    monkeypatch.setattr(prepare_search, "_build", build)
    made = prepare_search.prepare_search(
        plan(images), RunFolder(images / "none"), None, process_group=SINGLE_PROCESS, progress=silent
    )
    assert order == ["kernels"] * 3 + ["images", "search"]
    assert not made.notes


def test_what_is_waited_for_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early_kernels, "has_triton", lambda: True)

    def fails() -> None:
        raise RuntimeError("no kernel image")

    found = []
    for steps in ((), (lambda: None,), (fails,)):
        with KernelLoading(steps) as loading:
            loading.wait(silent)
        assert not what_is_waited_for("cpu", loading, 0)
        found += what_is_waited_for("cuda", loading, 3.2)
    slow = (
        "The first epoch takes longer: the GPU loads its kernels, and compiles those of cars-hw, which later "
        "searches find compiled."
    )
    assert found == [
        slow,
        "The GPU loaded its kernels while the images were read, and for 3 s after that.",
        f"{slow} They could not be loaded earlier: no kernel image.",
    ]
