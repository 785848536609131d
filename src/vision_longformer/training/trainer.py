"""The training loop: exact continuation, one process or many.

A run is a sequence of steps. What a step does follows from the configuration, the number of the step and the state
that a checkpoint holds (weights, their average, optimiser, scaler), so that a run that was interrupted, at whatever
moment, ends with the weights of one that was not.
"""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from vision_longformer.datasets.loaders import batches
from vision_longformer.evaluation.loop import EvaluationSetup
from vision_longformer.training import checkpoints
from vision_longformer.training.checkpoints import OUT_OF_PATIENCE, Checkpoint, Progress
from vision_longformer.training.config import TrainConfig
from vision_longformer.training.events import Event, preparing
from vision_longformer.training.learner import SMALLER_STEPS, Learner, TrainingError, set_neighbours, sum_of
from vision_longformer.training.numerics import DTYPES, autocast, numerics, versions
from vision_longformer.training.recipes import write_recipe
from vision_longformer.training.run_folder import RunFolder
from vision_longformer.training.sampler import Remaining
from vision_longformer.training.step_losses import StepLosses
from vision_longformer.training.tasks import choose_task
from vision_longformer.training.tasks.base import Batch, Preparation, Task
from vision_longformer.training.tensorboard import Scalars, require_tensorboard
from vision_longformer.training.trained import Result
from vision_longformer.training.weight_files import load_weights
from vision_longformer.utils.devices import choose_device
from vision_longformer.utils.distributed import Processes
from vision_longformer.utils.seeding import seed_step, seed_weights


def train(
    config: TrainConfig,
    *,
    data: str | Path | Sequence[str | Path],
    output: str | Path,
    processes: Processes | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """Train a model, or go on with a run that was interrupted.

    Args:
        config: What to train.
        data: A folder with splits "train" and "val", as the task has it (see `training.tasks`); of distillation, one
            or several folders of images.
        output: Folder of the run. One that holds a run of the same configuration is continued.
        processes: Those that share the work; each calls this function.
        should_stop: Asked after every step; where any process says so, the run is saved and ends with "stopped".

    Yields:
        What happens, as it happens.

    Raises:
        ValueError: Data, model or folder do not fit; before anything is trained.
        TrainingError: The loss is not a number any more, or an image cannot be read.
        OSError: Files cannot be written.
    """
    processes = processes or Processes()
    folder = RunFolder(output)
    if processes.is_first:
        folder.lock()
    processes.wait()
    begun = False
    try:
        number = processes.local_rank if processes.count > 1 else None
        device = choose_device(config.compute.device, number=number)
        with numerics(config.compute, device):
            folders = [Path(data)] if isinstance(data, str | Path) else [Path(one) for one in data]
            task = choose_task(config, folders)
            if folder.recipe.exists():
                folder.refuse_other(config)

            def asked_alone() -> bool:  # several processes read and check, each at its own pace
                return processes.count == 1 and should_stop()

            def asked_together() -> bool:
                return processes.any(should_stop(), device=device)

            if (yield from preparing(task.read(), asked_alone)):
                return
            preparation = Preparation(folder, processes, device, DTYPES[config.compute.precision])
            if (yield from preparing(task.prepare(preparation), asked_together)):
                return
            if processes.is_first and (yield from preparing(task.check(), asked_alone)):
                return
            trainer = _Trainer(config, task, folder, processes, device, should_stop)
            begun = True
            yield from trainer.run()
    finally:
        if not begun:
            folder.forget()
        folder.unlock()


class _Trainer:
    """One run. Its parts are built here; `run` walks its steps."""

    def __init__(
        self,
        config: TrainConfig,
        task: Task,
        folder: RunFolder,
        processes: Processes,
        device: torch.device,
        should_stop: Callable[[], bool],
    ) -> None:
        self.config, self.folder, self.processes, self.device = config, folder, processes, device
        self.should_stop, self.task = should_stop, task
        if config.compute.batch_size < processes.count:
            raise ValueError(
                f"compute.batch_size={config.compute.batch_size}: fewer images than there are processes "
                f"({processes.count})"
            )
        seed_weights(config.seed)
        model = self.task.build_model()
        self.remarks = list(self.task.remarks)
        if config.model.checkpoint is not None:
            self.remarks += self.task.start_from(model, config.model.checkpoint)
        self.order = self.task.order(processes)
        self.model = model.to(device)
        self.learner = Learner(self.model, config, steps_per_epoch=self.order.steps_per_epoch)
        if config.compute.compile:
            self.model.compile()
        self.losses = StepLosses(device, self._refuse)
        self.progress = Progress()
        self.steps = config.schedule.epochs * self.order.steps_per_epoch
        self.saved_at = time.monotonic()
        self.stopped = False
        self.scalars: Scalars | None = None
        if config.logging.tensorboard:
            require_tensorboard()

    # --- the run ----------------------------------------------------------------------------------------------

    def run(self) -> Iterator[Event]:
        """Walk the steps that are left."""
        if self.folder.last.exists():
            self.remarks = []
            self._restore()
            yield Event(
                "continued",
                self.progress.step,
                {"epochs": self.progress.step / self.order.steps_per_epoch, **self._about_run()},
            )
        else:
            self._begin()
            yield Event("begun", 0, self._about_run())
        if self.config.logging.tensorboard and self.processes.is_first:
            self.scalars = Scalars(self.folder.tensorboard, step=self.progress.step)
        for remark in self.remarks:
            yield Event("remark", self.progress.step, {"text": remark})
        self.wrapped: nn.Module = self.model
        if self.processes.count > 1:
            in_parts = self.config.compute.accumulation > 1
            self.wrapped = self.processes.wrap(self.model, device=self.device, in_parts=in_parts)
        first = self.progress.step
        parts = self._batches(first)
        for step in range(first, self.steps + 1):
            if step > 0 and step % self.order.steps_per_epoch == 0:
                yield from self._end_epoch(step // self.order.steps_per_epoch)
                if self.stopped:
                    return
                if step < self.steps and self.progress.is_out_of_patience(self.config):
                    yield Event("remark", step, {"text": f"{OUT_OF_PATIENCE} {self.progress.best_epoch}"})
                    break
            if step == self.steps:
                break
            yield self._step(step, parts)
            if self._is_asked_to_stop():
                self._save()
                yield Event("stopped", self.progress.step)
                return
            if time.monotonic() - self.saved_at > 60 * self.config.logging.checkpoint_minutes:
                self._save()
                yield Event("saved", self.progress.step)
        yield from self._finish()

    def _step(self, step: int, parts: Iterator[Batch]) -> Event:
        began = time.monotonic()
        set_neighbours(self.model, self.config.schedule, step=step, steps=self.steps)
        self.learner.schedule.step_update(step)
        self.model.train()
        size = len(self.order.step(step))
        counts = [len(keys) for keys in self.order.parts(step)]
        totals, indices = dict[str, Tensor](), []
        for number, count in enumerate(counts):
            batch = self._next(parts)
            indices += batch.indices
            last = number == len(counts) - 1
            synchronised = contextlib.nullcontext() if last or self.wrapped is self.model else self.wrapped.no_sync()  # type: ignore[operator]
            seed_step(self.config.seed, step=step, rank=self.processes.rank, part=number)
            with synchronised:
                with autocast(self.config.compute, self.device):
                    losses = self.task.losses(self.wrapped, batch, self.device)
                losses = {name: loss / size if count else loss * 0 for name, loss in losses.items()}
                # gradients of several processes are averaged
                self.learner.backward(sum_of(losses) * self.processes.count)
            totals = {name: totals.get(name, 0) + loss.detach() for name, loss in losses.items()}
        totals = dict(zip(totals, self.processes.sum(torch.stack(list(totals.values()))), strict=True))
        self.losses.add(step, totals, indices)
        self.learner.update(step)
        self.progress.step = step + 1
        seconds = time.monotonic() - began
        self.progress.seconds += seconds
        is_logged = (step + 1) % self.config.logging.every_steps == 0
        if is_logged:
            self.losses.read()
        values = {
            "epoch": step / self.order.steps_per_epoch,
            **self.losses.latest,
            "learning_rate": self.learner.learning_rate,
            "images_per_second": size / seconds,
            "images": size,
        }
        if self.processes.is_first and is_logged:
            self._log({"step": step + 1, **values})
        return Event("step", step + 1, values)

    def _is_asked_to_stop(self) -> bool:
        """Ask all processes; on GPUs, which that waits for, only now and then."""
        if self.processes.count > 1 and self.progress.step % self.losses.every:
            return False
        return self.processes.any(self.should_stop(), device=self.device)

    def _end_epoch(self, epoch: int) -> Iterator[Event]:
        """Evaluate where it is due, keep the best weights, and save."""
        due = epoch % self.config.logging.evaluate_every_epochs == 0 or epoch == self.config.schedule.epochs
        if due and self.progress.evaluated_epochs < epoch:
            self.losses.read()
            self.learner.check(self.progress.step, kept=self._kept())
            yield Event("evaluating", self.progress.step, {"images": self.task.validation_images})
            result = self._evaluate_or_save()
            if result is None:
                self._save()
                self.stopped = True
                yield Event("stopped", self.progress.step)
                return
            metrics = result.metrics()
            score = metrics[self.task.best]
            is_best = self.progress.best is None or score > self.progress.best
            if is_best:
                self.progress.best, self.progress.best_epoch = score, epoch
                if self.processes.is_first:
                    self.task.save_weights(self.learner.to_use, self.folder.best)
            self.progress.evaluated_epochs = epoch
            values = {"epoch": epoch, **{f"val_{name}": value for name, value in metrics.items()}}
            if self.processes.is_first:
                self._log({"step": self.progress.step, **values})
            yield Event("evaluated", self.progress.step, {**values, "is_best": is_best})
        self._save()

    def _finish(self) -> Iterator[Event]:
        """Evaluate the best weights, unless there is a report about them."""
        has_report = self.processes.is_first and self.folder.report.exists()
        if not self.processes.any(has_report, device=self.device):
            self.processes.wait()  # until the first one has written the weights
            result = self._evaluate(load_weights(self.folder.best).model.to(self.device))
            if result is None:  # in all processes
                yield Event("stopped", self.progress.step)
                return
            if self.processes.is_first:
                yield Event("result", self.progress.step, {"result": result, "progress": self.progress})
        values = {
            "measure": self.task.best,
            "best": self.progress.best,
            "best_epoch": self.progress.best_epoch,
            "seconds": self.progress.seconds,
        }
        yield Event("finished", self.progress.step, values)

    # --- parts of a step --------------------------------------------------------------------------------------

    def _batches(self, first: int) -> Iterator[Batch]:
        keys = Remaining(self.order, first, self.steps)
        images = self.task.training_data(self.model)
        return batches(images, keys, workers=self.config.compute.workers, pin=self.device.type == "cuda")

    def _next(self, parts: Iterator[Batch]) -> Batch:
        try:
            return next(parts)
        except ValueError as error:
            raise TrainingError(f"{error}; the last checkpoint is kept") from error

    def _evaluate_or_save(self) -> Result | None:
        """Evaluate; where an image cannot be read, the steps that were taken are saved first."""
        try:
            return self._evaluate(self.learner.to_use)
        except ValueError as error:
            self._save()
            raise TrainingError(f"{error}; the run is saved, mend this and run the same command to continue") from error

    def _refuse(self, step: int, value: float, indices: list[int]) -> NoReturn:
        files = self.task.files(indices)
        listed = ", ".join(files[:8]) + (f" and {len(files) - 8} more" if len(files) > 8 else "")
        raise TrainingError(
            f"step {step + 1}: the loss is {value}; training stopped, and {self._kept()}. The batch's files: {listed}. "
            f"{SMALLER_STEPS}"
        )

    def _kept(self) -> str:
        return f"{self.folder.last} holds the run as it was" if self.folder.last.exists() else "nothing was saved"

    # --- evaluation -------------------------------------------------------------------------------------------

    def _evaluate(self, model: nn.Module) -> Result | None:
        self.processes.share_first(model.buffers())  # running statistics of batch norms differ between processes
        compute = self.config.compute
        setup = EvaluationSetup(
            batch_size=max(1, compute.batch_size // compute.accumulation // self.processes.count),
            workers=compute.workers,
            device=self.device,
            autocast_dtype=DTYPES[compute.precision],
            processes=self.processes,
            should_stop=self.should_stop,
        )
        return self.task.evaluate(model, setup)

    # --- files ------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if not self.processes.is_first:
            return
        self.folder.write_text(self.folder.recipe, write_recipe(self.config))
        self.folder.write_about(self._about_run())
        self.folder.metrics.unlink(missing_ok=True)
        self.folder.report.unlink(missing_ok=True)

    def _about_run(self) -> dict[str, Any]:
        return {
            "images": self.task.training_images,
            "validation_images": self.task.validation_images,
            "classes": list(self.task.classes),
            "steps": self.steps,
            "steps_per_epoch": self.order.steps_per_epoch,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "processes": self.processes.count,
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "processor": platform.processor() or platform.machine(),
            "seed": self.config.seed,
            "versions": versions(),
        }

    def _log(self, values: dict[str, Any]) -> None:
        self.folder.append_metrics(values)
        if self.scalars is not None:
            self.scalars.write(values)

    def _save(self) -> None:
        """Write the checkpoint to continue from."""
        self.losses.read()
        self.learner.check(self.progress.step, kept=self._kept())
        if self.processes.is_first:
            about = {
                "scaler": self.learner.scaler.state_dict(),
                "classes": list(self.task.classes),
                "images": self.task.digest(),
                "processes": self.processes.count,
                "versions": versions(),
            }
            checkpoints.write(self.folder.last, Checkpoint(self.learner.tensors(), self.progress, about))
        self.saved_at = time.monotonic()

    def _restore(self) -> None:
        checkpoint = checkpoints.read(self.folder.last)
        about, step = checkpoint.about, checkpoint.progress.step
        if about.get("images") != self.task.digest():
            raise ValueError(
                f"{self.folder.path}: the training images are not those that the run was begun with; bring them back, "
                "or begin another run with another --output"
            )
        if step > self.steps:
            raise ValueError(f"{self.folder.last}: is damaged: it is at step {step} of a run of {self.steps}")
        try:
            self.learner.restore(checkpoint)
        except ValueError as error:
            raise ValueError(f"{self.folder.last}: {error}") from error
        self.progress = checkpoint.progress
        begun_with = about.get("processes")
        if begun_with != self.processes.count:
            self.remarks = [
                f"saved with {begun_with} process(es), continued with {self.processes.count}: what is drawn at random "
                "in each process differs, and so will the weights"
            ]
        if self.processes.is_first:
            self.folder.forget_metrics_after(self.progress)
