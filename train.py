"""Train a cross-encoder on a teacher's rankings.

    python train.py                                     the bundled sample, a tiny backbone, on the CPU
    python train.py loss=adrmse data.depth=50
    python train.py backbone=hf backbone.name=DIR data=files data.passages=P.tsv data.queries=Q.tsv \
        teacher=run teacher.path=T.run loss=ranknet data.depth=50
    python train.py resume=outputs/DATE/TIME            resume a stopped run, with its configuration
    torchrun --nproc-per-node 8 train.py ...            the same updates, computed by several GPUs

The training loop is below. It writes to its output directory: config.yaml, metrics.jsonl, checkpoints/, model/ (the
best by validation) and results.json.
"""

if __name__ == "__main__":  # before the slow imports
    from distill.interrupt import answer_stops

    answer_stops()

import logging
import sys
import time
from pathlib import Path

import hydra
from omegaconf import DictConfig

from distill.config.checks import check_train
from distill.config.command import start
from distill.config.datasets import data_sets
from distill.config.losses import implementation_of
from distill.config.overrides import as_override
from distill.jobs import command_line, open_run, own_command_line, resume_command, run_job, shown_path
from distill.targets import MAIN

log = logging.getLogger("train")


def train(cfg: DictConfig, directory: Path) -> dict[str, float]:
    """Train, validate and test as configured; return the contents of results.json.

    Raises InputError for bad input, and SystemExit(128 + signal) after SIGTERM or Ctrl-C, once a checkpoint is saved.
    """
    # Imported here, so that --help and the first line of output do not wait for torch
    import torch

    from distill.data.batch import split_lists
    from distill.data.mixing import make_loader
    from distill.device import (
        check_implementation,
        choose_device,
        choose_precision,
        describe_device,
        must_compile,
        peak_memory,
    )
    from distill.distributed import start_ranks
    from distill.evaluation.tasks import read_tasks
    from distill.export.model_card import write_card
    from distill.interrupt import StopRequest
    from distill.losses.objective import Objective
    from distill.models.adapters import train_adapters
    from distill.models.cross_encoder import CrossEncoder
    from distill.models.freezing import freeze
    from distill.models.starting import reader_of, start_options
    from distill.progress import Progress
    from distill.training.averaging import MovingAverage
    from distill.training.backward import backward
    from distill.training.checkpoint import Checkpoints, seed_of_rank
    from distill.training.data_sets import read_data_sets
    from distill.training.draw import PassageDraw
    from distill.training.final_test import FinalTest
    from distill.training.optim import gradient_metrics, make_optimizer, set_lr, warn_of_warmup
    from distill.training.plan import plan_training, warn_of_few_lists
    from distill.training.recompute import recompute_activations
    from distill.training.row_gradients import add_gradients_by_row
    from distill.training.selection import NOT_DUE, Selection
    from distill.training.state import TrainingState
    from distill.training.throughput import Throughput
    from distill.training.tracking import Tracker
    from distill.training.verdict import agreement_results, log_verdict, measure_agreement

    # ---- 1. Device and directory -------------------------------------------------------------------------------------
    started = time.perf_counter()
    ranks = start_ranks(choose_device(cfg.train.device))
    device, precision = ranks.device, choose_precision(cfg.train.precision, ranks.device)
    log.info("%s", describe_device(device, precision, ranks.size))
    is_compiled = must_compile(cfg.train.compile, device)
    check_implementation(implementation_of(cfg.loss), device)
    with open_run(cfg, directory, ranks) as directory, Tracker(cfg) as tracker:
        # ---- 2. Data: errors in it show before a model is built ------------------------------------------------------
        missing: dict[str, str] = {}  # tasks of a suite that are not available here -> why
        validation, tasks = list(read_tasks(cfg.validation, {})), list(read_tasks(cfg.task, missing))
        reader = reader_of(cfg.backbone.name, cfg.backbone.revision, cfg.model.prompt)
        sets = data_sets(cfg)
        reports = directory if ranks.is_first and not cfg.resume else None  # of false negatives: a resumed run has them
        lists = read_data_sets(sets, reader, reports)
        plan = plan_training(cfg.train, sum(map(len, lists.values())))
        for own in (cfg, *sets.values()):  # the loaders and the model's card read it
            own.train.batch_size = plan.batch_size
        warn_of_few_lists(plan.num_lists)

        # ---- 3. Model and state --------------------------------------------------------------------------------------
        torch.manual_seed(cfg.seed)
        model = CrossEncoder.from_backbone(cfg.backbone.name, **start_options(cfg))
        freeze(model, **cfg.model.freeze)
        if cfg.model.lora.rank is not None:
            train_adapters(model, **cfg.model.lora)
        if cfg.train.checkpointing:
            recompute_activations(model.backbone)
        model.to(device)
        ranks.copy_from_first(model)
        if not ranks.is_first:
            torch.manual_seed(seed_of_rank(cfg.seed, ranks.rank))  # for dropout
        loader = make_loader(lists, sets, model.template, ranks)
        selection = Selection(cfg, directory, validation, model, precision, ranks)
        test = FinalTest(cfg, directory, tasks, missing, model, precision, ranks)
        if is_compiled:
            model.backbone.compile(dynamic=True)  # in place: torch.compile(model) would prefix the weights' names
        else:
            add_gradients_by_row(model)
        optimizer = make_optimizer(model, cfg.optimizer)
        objective = Objective(cfg.loss, cfg.model.exit_weight if model.exit is not None else None)
        num_steps = plan.num_steps
        state = TrainingState(device, objective.names, started=started, may_skip=precision == torch.float16)
        average = MovingAverage(model, cfg.train.ema)
        scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
        scaler.scale(torch.zeros((), device=device))  # makes its scale, for a rank without lists in its first step
        also, keep = {"average": average, "soup": selection.soup, "scaler": scaler}, cfg.train.keep_previous
        checkpoints = Checkpoints(
            directory, ranks, model, optimizer, state, also, lists, selection.checksums(), num_steps, keep
        )
        if cfg.resume:
            checkpoints.resume(cfg)
        elif cfg.task.untrained:
            state.results |= test.untrained()
        if ranks.is_first:
            tracker.start(directory, state.step)
        warn_of_warmup(cfg.optimizer, num_steps)
        log.info("%s, %d steps", model.describe(), num_steps)
        log.info("%s", plan.describe())

        # ---- 4. The loop ---------------------------------------------------------------------------------------------
        model.train()
        num_workers = cfg.train.num_workers
        if num_workers is None:
            num_workers = 2 if device.type == "cuda" else 0
        batches = loader.batches(state.step, num_steps, num_workers)
        throughput = Throughput(model, device)
        save_every = cfg.train.save_every or cfg.train.validate_every
        bar = Progress(total=num_steps, initial=state.step, desc="training", unit="step", shown=ranks.is_first)
        with StopRequest() as stop, bar:
            while state.step < num_steps and not state.out_of_patience(cfg.train.patience):
                # One step: forward and backward through micro-batches of whole lists, then one update
                batch = next(batches).to(device)
                lr = set_lr(optimizer, cfg.optimizer, state.step, num_steps)
                weights = objective.weights(state.step, num_steps)  # [parts]: of a mixture's losses, or one of 1
                # Divided by the terms of the whole step, so that the update depends on neither micro-batches nor ranks
                num_terms = ranks.sum_on_device(objective.count_terms(batch.targets, batch.mask)).clamp(min=1)
                losses = torch.zeros(len(weights), device=device)
                draw = PassageDraw(cfg.train.learn_from, cfg.seed, state.step)
                for micro_batch in split_lists(batch, cfg.train.max_tokens):
                    losses += backward(
                        model, micro_batch, objective, num_terms, weights, cfg.train.max_tokens, precision, scaler, draw
                    )
                ranks.sum_gradients(model)
                scaler.unscale_(optimizer)  # of float16 only, as is its decision to skip a step
                max_norm = cfg.optimizer.max_grad_norm or float("inf")
                grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
                loss = objective.weigh(losses, weights)
                state.note(loss, losses, grad_norm)  # no .item() here: it would wait for the GPU
                average.update(state.step)
                throughput.count(batch, draw)
                bar.update()

                validated = NOT_DUE
                if selection.is_due(state.step, num_steps):
                    state.check_finite(loader)
                    with throughput.paused(), average.in_place():
                        runs, values = selection.rank()
                        tracker.log(state.step, {f"val/{name}": value for name, value in values.items()})
                        validated = selection.keep_if_better(state, runs, values)
                        if ranks.is_first:
                            bar.write(validated.describe(state.step), file=sys.stderr)
                is_last = state.step == num_steps or state.out_of_patience(cfg.train.patience)  # as just validated

                if state.step % cfg.train.log_every == 0 or is_last:
                    state.check_finite(loader)
                    metrics = {**state.take_mean_loss(ranks), "train/lr": lr}
                    metrics |= {**gradient_metrics(grad_norm, scaler), **throughput.take(ranks)}
                    tracker.log(state.step, metrics)
                    bar.set_postfix_str(f"loss {metrics['train/loss']:.4f}")

                stopped_by = int(max(ranks.gather(stop.signal or 0)))
                is_better = validated.improved or validated.joined
                if stopped_by or is_better or state.step % save_every == 0 or is_last:
                    state.check_finite(loader)
                    tracker.flush()
                    checkpoints.save(validated.improved)
                if stopped_by:
                    log.info("checkpoint saved at step %d; resume with: %s", state.step, resume_command(cfg, directory))
                    raise SystemExit(128 + stopped_by)

        # ---- 5. The best model by validation (the last one without validation), tested once --------------------------
        results = state.results
        if validation:
            results |= selection.load_best(state, checkpoints)
        else:
            average.copy_to_model()
            checkpoints.keep_last()
        results |= {"train/lists": plan.num_lists, "train/steps": state.step}
        results["train/seconds"] = state.seconds()
        results["memory/train/peak_bytes"] = peak_memory(device)
        results |= test.results()
        taus = {}
        if ranks.is_first and not (tasks or validation):
            taus = measure_agreement(sets[MAIN], lists[MAIN], model, precision)
        results |= agreement_results(taus)
        if ranks.is_first:
            if tasks:
                print(test.table(results))
            tracker.save_results(results)  # first: what follows may fail without them
            command = own_command_line("train", checkpoints.overrides)
            write_card(checkpoints.model_directory, cfg, results, command, model)
        per_query = {name: rows["test"] for name, rows in test.per_query.items()}
        tracker.finish(results, checkpoints.model_directory, per_query)
        ranks.finish()
        if ranks.is_first:
            log_verdict(cfg, directory, results, test.per_query, validation, taus)
            model_path = shown_path(checkpoints.model_directory)
            log.info("model: %s", model_path)
            base = [as_override("base", cfg.backbone.name)] if model.saves_adapters else []
            log.info("next: %s", command_line("evaluate", as_override("model", model_path), *base, "task=..."))
        return results


def describe(cfg: DictConfig) -> str:
    """Return the first line of output."""
    backbone = shown_path(cfg.backbone.name) if Path(cfg.backbone.name).is_absolute() else cfg.backbone.name
    names = f"{backbone} with loss={cfg.loss.name}, data={cfg.data.name}, teacher={cfg.teacher.name}"
    return f"training {names}, seed={cfg.seed}"


@hydra.main(config_path="conf", config_name="train", version_base="1.3")
def main(cfg: DictConfig) -> float | None:
    """Train one configuration and return its objective; bad input ends with a one-line message and exit status 2."""
    return run_job(cfg, describe, check_train, train)


if __name__ == "__main__":
    start(main, "train")
