"""The steps of a run hash an image again only if it may have changed, and still notice what did."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from frozen_data import freeze

from cars_hw.config.data import NO_CACHE, DataSource
from cars_hw.config.presets import PRESETS
from cars_hw.data import fingerprint, image_cache, known_digests
from cars_hw.data.known_digests import Known
from cars_hw.errors import DataChangedError
from cars_hw.pipeline.plan import SearchPlan, configuration
from cars_hw.pipeline.records import RunAbout
from cars_hw.pipeline.run_data import load_frozen
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.space.network_spec import NetworkSpec


def test_a_step_hashes_what_may_have_changed(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    plain, clock = fingerprint._hashed, known_digests.now

    def watch(file: Path) -> Known:
        hashed.append(file)
        return plain(file)

    monkeypatch.setattr(fingerprint, "_hashed", watch)
    monkeypatch.setattr(fingerprint, "now", lambda: clock() + 60)
    monkeypatch.setattr(image_cache, "LEAST_FILES", 1)
    folder = tmp_path / "stripes"
    shutil.copytree(images, folder)
    source = DataSource(str(folder), image_cache=str(tmp_path / "kept"))
    plan = SearchPlan(source, NetworkSpec(4, 3, (8, 8), 1, classes=3), PRESETS["quick"], costs=("parameters",))
    run = RunFolder.create(tmp_path / "run", configuration(plan), RunAbout("", {}, 1))
    manifest = freeze(run, source)
    everything = len(hashed)
    assert everything == 3 * 64
    hashed.clear()
    assert load_frozen(run, manifest, None, None).digest == manifest.digest
    assert hashed == []
    # The setting of a step, not of the search: everything anew.
    load_frozen(run, manifest, DataSource(str(folder), image_cache=NO_CACHE), None)
    assert len(hashed) == everything
    changed = folder / "plain" / "7.png"
    before, content = changed.stat(), bytearray(changed.read_bytes())
    content[-20] ^= 1
    changed.write_bytes(content)
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    hashed.clear()
    with pytest.raises(DataChangedError, match=r"1 .* of plain was changed \(plain/7.png\)"):
        load_frozen(run, manifest, None, None)
    assert hashed == [changed]
