"""The trainings of a run in several processes: what the leading process sends, and what the others do with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import torch

from cars_hw.config.codec import structure, unstructure
from cars_hw.config.training import Recipe
from cars_hw.nn.network import Network
from cars_hw.pipeline.networks import TrainedNetwork
from cars_hw.pipeline.run_data import load_for_training, require_same
from cars_hw.pipeline.run_folder import RunFolder
from cars_hw.pipeline.settings import TrainSettings
from cars_hw.pipeline.training_job import TrainingJob, same_teacher
from cars_hw.progress import silent
from cars_hw.space.genotype import Genotype
from cars_hw.space.network_spec import NetworkSpec
from cars_hw.training.determinism import deterministic_algorithms
from cars_hw.training.network_step import Stepping
from cars_hw.training.process_group import ProcessGroup
from cars_hw.training.standalone import train_network


def follow(run: RunFolder, settings: TrainSettings, process_group: ProcessGroup) -> list[TrainedNetwork]:
    """Take part in the leading process's trainings; it sends their settings and initial weights."""
    sent = json.loads(process_group.broadcast(None))
    # After the leading process, which may have to download the data. What it accepts is the same here.
    given = replace(settings.data or run.training_data.source, memory=sent["memory"])
    data = load_for_training(run, given, accept=True, download=False)
    require_same(data, sent["data_digest"])
    for job in sent["jobs"]:
        recipe, genotype = structure(job["recipe"], Recipe), Genotype.from_dict(job["genotype"])
        network = Network(structure(job["network"], NetworkSpec), genotype, auxiliary=recipe.auxiliary > 0)
        data = data.at(run, network.spec.resolution)
        with torch.random.fork_rng(devices=[]), deterministic_algorithms(job["deterministic"]):
            train_network(
                network,
                data.bundle,
                recipe,
                seed=job["seed"],
                device=job["device"],
                process_group=process_group,
                progress=silent,
                stepping=Stepping(compiled=job["compile"]),
                teacher=same_teacher(settings.teacher, job["teacher"]) if job["teacher"] else None,
            )
    return []


def to_bytes(jobs: Sequence[TrainingJob], data_digest: str, memory: int | None) -> bytes:
    """Return what :func:`follow` needs of ``jobs``; ``memory`` is the limit for images in bytes."""
    settings = [
        {
            "genotype": job.architecture.genotype.to_dict(),
            "network": unstructure(job.architecture.network),
            "recipe": unstructure(job.recipe),
            "seed": job.seed,
            "device": job.device,
            "teacher": job.start.teacher_about,
            "deterministic": job.deterministic,
            "compile": job.stepping.compiled,
        }
        for job in jobs
    ]
    return json.dumps({"data_digest": data_digest, "memory": memory, "jobs": settings}).encode()
