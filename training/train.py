"""Trains a depth network as a configuration says; run it again to go on after an interruption.

Several GPUs or machines: start it with torchrun; every process takes its part of each batch.
Written to --out: last.ckpt, best.ckpt (validation delta1), metrics.csv (a row an epoch), run.yaml
(configuration, commit, seed, hash of the list of images, versions), TensorBoard logs with panels.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger

from training.averaging import WarmAveraging
from training.bytes_to_metres import load_bytes_to_metres
from training.checkpoint import AtomicCheckpointIO, load_weights
from training.config import Config, read_config
from training.datamodule import DepthData
from training.depth_module import DepthModule
from training.metrics_csv import MetricsCSV
from training.models import load_encoder
from training.run import check_continues, checkpoint_info, world_size, write_run

# A kill costs no more than this, even where an epoch takes an hour.
SAVE_EVERY = timedelta(minutes=5)


class ProgressBar(TQDMProgressBar):
    """Lightning's bar without the logger's version, which says nothing here."""

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics


def callbacks(config: Config, out: Path) -> list[Callback]:
    """Checkpoints, metrics file, weight averaging and early stop, as configured."""
    files: dict[str, Any] = {"dirpath": out, "enable_version_counter": False}
    made: list[Callback] = [
        ProgressBar(),
        MetricsCSV(out / "metrics.csv"),
        ModelCheckpoint(filename="best", monitor="validation/delta1", mode="max", **files),
        ModelCheckpoint(filename="last", every_n_epochs=1, save_on_train_epoch_end=True, **files),
        ModelCheckpoint(filename="last", train_time_interval=SAVE_EVERY, **files),
    ]
    if config.ema_decay is not None:
        made.append(WarmAveraging(config.ema_decay))
    if config.early_stop is not None:
        made.append(EarlyStopping("validation/delta1", patience=config.early_stop, mode="max"))
    return made


def train(
    config: Config,
    data: DepthData,
    out: Path,
    encoder_weights: Path | None = None,
    init: Path | None = None,
    teacher: Path | None = None,
    accelerator: str = "auto",
) -> DepthModule:
    """Runs a training, or goes on with the one in `out`.

    Args:
        encoder_weights: ImageNet weights to start the encoder from.
        init: checkpoint to start the whole network from.
        teacher: checkpoint of a network to learn from, beside the truth.
        accelerator: as Lightning's Trainer takes it.

    Returns:
        The module as it was at the end.

    Raises:
        ValueError: weights or checkpoints that do not fit.
        OSError: `out` cannot be written to.
    """
    # Its greetings and tips would hide what is said here.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    lightning.seed_everything(config.seed, verbose=False)
    info = checkpoint_info(config, data)
    tutor = load_bytes_to_metres(teacher)[0] if teacher else None
    module = DepthModule(config, info, data.total_steps, teacher=tutor)
    last = out / "last.ckpt"
    if last.exists():
        check_continues(last, info)
    elif init is not None:
        load_weights(module.network, init, config.architecture)
    elif encoder_weights is not None:
        load_encoder(module.network, encoder_weights)
    local, world = world_size()
    trainer = Trainer(
        accelerator=accelerator,
        strategy="ddp" if world > 1 else "auto",
        devices=local,
        num_nodes=world // local,
        precision=config.precision,
        max_epochs=config.epochs,
        gradient_clip_val=config.optimiser.gradient_clip,
        callbacks=callbacks(config, out),
        logger=TensorBoardLogger(out, name="", version="tensorboard"),
        plugins=[AtomicCheckpointIO()],
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        log_every_n_steps=min(50, data.steps),
        enable_model_summary=False,
        benchmark=True,
    )
    if trainer.is_global_zero and not last.exists():
        write_run(out, info)
    with warnings.catch_warnings():
        for expected in (
            "does not have many workers",  # the caller chose their number
            "Checkpoint directory .* exists",  # a run goes on in its folder
            ".*is_leaf",  # Lightning's own use of a deprecated call
            "Found .* in eval mode",  # what is frozen
        ):
            warnings.filterwarnings("ignore", f".*{expected}")
        trainer.fit(
            module, datamodule=data, ckpt_path=last if last.exists() else None, weights_only=True
        )
    return module


def parse_assignment(text: str) -> tuple[str, Any]:
    """Reads KEY=VALUE; the value is YAML.

    >>> parse_assignment("optimiser.lr=0.01")
    ('optimiser.lr', 0.01)
    """
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"'{text}' is not KEY=VALUE")
    return key, yaml.safe_load(value)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line; None takes the process's own."""
    parser = argparse.ArgumentParser(
        prog="python -m training.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""examples:
  python -m training.train --config training/configs/compact.yaml
  python -m training.train --config training/configs/paper.yaml --data-root /data \\
      --pretrained densenet169-b2777c0a.pth
  torchrun --nproc-per-node 8 -m training.train --config training/configs/article.yaml
Run the same command again to continue after an interruption.""",
    )
    parser.add_argument("--config", required=True, type=Path, help="YAML file")
    parser.add_argument("--out", type=Path, help="default: runs/NAME-OF-CONFIG")
    parser.add_argument(
        "--data-root",
        type=Path,
        default=Path("data"),
        help="folder that the configuration's relative paths start from (default: data)",
    )
    parser.add_argument(
        "--data",
        type=parse_assignment,
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="where one of the configuration's sources is, instead",
    )
    parser.add_argument("--pretrained", type=Path, help="ImageNet weights of the encoder")
    parser.add_argument("--init", type=Path, help="checkpoint to start the whole network from")
    parser.add_argument(
        "--set",
        type=parse_assignment,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="replace a value of the configuration, e.g. optimiser.lr=2e-4",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=min(os.cpu_count() or 1, 16),
        help="loader processes of each training process (default: one a core, 16 at most)",
    )
    parser.add_argument("--accelerator", default="auto", help="auto, gpu or cpu")
    return parser.parse_args(argv)


def one_line(error: Exception) -> str:
    """The message of an error, also of one that a loader process raised with its traceback."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    last = lines[-1]
    return last.split("Error: ", 1)[-1] if "Traceback" in str(error) else last


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    try:
        overrides = {f"data.{name}.path": str(Path(p).absolute()) for name, p in args.data}
        config = read_config(args.config, {**overrides, **dict(args.set)})
        weights = args.pretrained
        if weights is None and config.encoder_weights is not None:
            weights = args.data_root / config.encoder_weights
        if weights is None and args.init is None:
            print("the encoder starts from random weights; --pretrained FILE starts it better")
        data = DepthData(config, args.data_root, args.workers, world_size()[1])
        out = args.out or Path("runs") / args.config.stem
        teacher = args.data_root / config.teacher if config.teacher else None
        train(config, data, out, weights, args.init, teacher, args.accelerator)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"training.train: {one_line(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
