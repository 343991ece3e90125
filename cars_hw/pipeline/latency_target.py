"""What a run's tables say of any genotype."""

from __future__ import annotations

from cars_hw.config.measurement import Precision
from cars_hw.devices import ModelFormat, format_of
from cars_hw.latency import LatencyTable, Predictor
from cars_hw.pipeline.run_folder import Promise, RunFolder
from cars_hw.space.genotype import Genotype


class Promises:
    """The predictors of the tables that a run keeps copies of, with its budgets."""

    def __init__(self, run: RunFolder) -> None:
        budgets = run.configuration["budgets"]
        self._limits: list[float | None] = [budget["limit_ms"] for budget in budgets]
        self._tables = [LatencyTable.read(run.table_path(index)) for index in range(len(budgets))]
        self._predictors = [Predictor(table) for table in self._tables]

    def of(self, genotype: Genotype) -> tuple[Promise, ...]:
        """Return a promise for each table, in their order."""
        promises = []
        for table, predictor, limit in zip(self._tables, self._predictors, self._limits, strict=True):
            prediction = predictor.predict(genotype)
            promises.append(
                Promise(table.device, prediction.ms, prediction.bound_ms, limit, precision=table.precision)
            )
        return tuple(promises)

    def table(self, device: str) -> LatencyTable | None:
        """Return the run's first table of ``device``, or None."""
        return next((table for table in self._tables if table.device == device), None)

    def of_models(self, model_format: ModelFormat, precision: Precision, genotype: Genotype) -> Promise | None:
        """Return the promise of the first table whose device runs such models, or None."""
        for promise in self.of(genotype):
            if (format_of(promise.device), promise.precision) == (model_format, precision):
                return promise
        return None

    def on(self, device: str, precision: Precision, genotype: Genotype) -> Promise | None:
        """Return the promise for ``device`` and models of ``precision``, None where the run has no such table."""
        for promise in self.of(genotype):
            if (promise.device, promise.precision) == (device, precision):
                return promise
        return None
