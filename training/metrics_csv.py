"""A CSV file with one row for each epoch."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class MetricsCSV(Callback):
    """Writes every epoch's metrics to `path`; a continued run replaces the rows it repeats."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._started = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        row: dict[str, Any] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        row["lr"] = f"{trainer.optimizers[0].param_groups[0]['lr']:.3g}"
        row["seconds"] = round(time.monotonic() - self._started, 1)
        scores = {
            name: round(float(value), 5)
            for name, value in sorted(trainer.callback_metrics.items())
            if name.startswith(("train/", "validation/"))
        }
        rows = [r for r in self._rows() if int(r["epoch"]) < trainer.current_epoch]
        rows.append(row | scores)
        with self.path.open("w", newline="") as file:
            columns = list(dict.fromkeys(name for r in rows for name in r))
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    def _rows(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))
