"""Train a cross-encoder on a teacher's rankings.

    python train.py                                     the bundled sample, a tiny backbone, on the CPU
    python train.py loss=adrmse data.depth=50
    python train.py backbone=hf backbone.name=DIR data=files data.passages=P.tsv data.queries=Q.tsv \
        teacher=run teacher.path=T.run loss=ranknet data.depth=50
    python train.py resume=outputs/DATE/TIME            the stopped run there, with its configuration
    torchrun --nproc-per-node 8 train.py ...            the same update from several GPUs

The loop is written out below; what it leaves behind lies in its output directory: config.yaml, metrics.jsonl,
checkpoints/, model/ (the best by validation) and results.json.
"""

if __name__ == "__main__":  # before the slow imports
    from distill.interrupt import answer_stops

    answer_stops()

import functools
import logging
import shlex
import sys
import time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from distill.config.checks import check_train
from distill.config.composition import command_overrides, refuse_renamed, register_schemas
from distill.data.teacher_lists import needs_first_stage
from distill.errors import InputError, exit_on_bad_input
from distill.evaluation.results import format_results
from distill.jobs import invocation, open_run, resume_command, run_job
from distill.training.tracking import Tracker

log = logging.getLogger("train")


def train(cfg: DictConfig, directory: Path) -> dict[str, float]:
    """Train, validate and test as configured; return what results.json holds.

    Raises InputError for bad input, and SystemExit(128 + signal) after a SIGTERM or Ctrl-C has been answered by a
    checkpoint.
    """
    # Imported here, so that --help and a printed configuration need not wait for them
    from distill.device import choose_device
    from distill.distributed import start_ranks

    ranks = start_ranks(choose_device(cfg.train.device))
    if not ranks.is_first:
        logging.getLogger().setLevel(logging.ERROR)
    # Whatever ends the run, the directory is free again and W&B is told so
    with open_run(cfg, directory, ranks) as directory, Tracker(cfg) as tracker:
        return train_tracked(cfg, directory, tracker, ranks)


def train_tracked(cfg: DictConfig, directory: Path, tracker: Tracker, ranks) -> dict[str, float]:
    """Do what `train` says, from the data to the results."""
    import torch
    from tqdm import tqdm

    from distill.config.measures import parse_measures
    from distill.data.batch import split_lists
    from distill.data.lists import read_lists
    from distill.data.loader import BatchLoader
    from distill.device import check_implementation, choose_precision
    from distill.evaluation.averages import measure_rows, measure_together, suite_results
    from distill.evaluation.rerank import Reranker
    from distill.evaluation.results import task_directory, write_task
    from distill.evaluation.tasks import read_tasks
    from distill.export.model_card import write_card
    from distill.interrupt import StopRequest
    from distill.losses import LOSSES, TERMS
    from distill.models.cross_encoder import CrossEncoder
    from distill.models.parts import load_tokenizer
    from distill.sources.locate import with_local_files
    from distill.training.backward import backward
    from distill.training.checkpoint import (
        link_checkpoint,
        load_checkpoint,
        mend_best,
        random_state,
        restore_random_state,
        save_checkpoint,
        seed_of_rank,
    )
    from distill.training.flops import FlopCounter, peak_flops
    from distill.training.optim import make_optimizer, set_lr, warn_of_warmup
    from distill.training.verdict import agreement_results, log_verdict, measure_agreement

    started = time.perf_counter()
    device = ranks.device
    precision = choose_precision(cfg.train.precision, device)
    if "implementation" in cfg.loss:
        check_implementation(cfg.loss.implementation, device)

    # Data first: whatever is wrong with it shows before a model is built
    local = with_local_files(cfg, () if needs_first_stage(cfg) else ("teacher.first_stage",))
    validation, tasks = read_tasks(cfg.validation), read_tasks(cfg.task)  # small, before a collection is tokenised
    lists = read_lists(local, load_tokenizer(cfg.backbone.name, cfg.backbone.revision))

    torch.manual_seed(cfg.seed)
    model = CrossEncoder.from_backbone(
        cfg.backbone.name,
        pooling=cfg.model.pooling,
        query_length=cfg.model.query_length,
        passage_length=cfg.model.passage_length,
        weights=cfg.backbone.weights,
        dropout=cfg.model.dropout,
        revision=cfg.backbone.revision,
        layout=cfg.model.layout,
        num_layers=cfg.backbone.num_layers,
    ).to(device)
    ranks.copy_from_first(model)
    if not ranks.is_first:
        torch.manual_seed(seed_of_rank(cfg.seed, ranks.rank))  # dropout of its own
    loader = BatchLoader(lists, model.template, cfg, ranks.rank, ranks.size)
    validators = [Reranker(task, model, judged_only=True, ranks=ranks) for task in validation]
    testers = [Reranker(task, model, ranks=ranks) for task in tasks]
    if cfg.train.compile.lower() == "true" or (cfg.train.compile.lower() == "auto" and device.type == "cuda"):
        model.backbone.compile(dynamic=True)  # in place: torch.compile(model) would prefix the names of the weights
    optimizer = make_optimizer(model, cfg.optimizer)
    options = {key: value for key, value in cfg.loss.items() if key not in ("name", "target", "reduction")}
    loss_function = functools.partial(LOSSES[cfg.loss.name], reduction="sum", **options)
    count_terms = TERMS[cfg.loss.name]
    num_steps = cfg.train.max_steps or -int(-cfg.train.max_epochs * len(lists) // cfg.train.batch_size)
    save_every = cfg.train.save_every or cfg.train.validate_every

    step, best_step, best_value, results = 0, 0, float("-inf"), {}
    sums = torch.zeros(2, device=device)  # loss of this rank's lists and number of steps since the last log line
    first_bad = torch.full((), -1, device=device)  # first step with a loss or gradient that is not finite
    last, best = directory / "checkpoints" / "last.pt", directory / "checkpoints" / "best.pt"
    model_directory = directory / "model"
    overrides, size_of_lists = own_overrides(), [len(lists), len(lists.rows)]
    if cfg.resume:
        state = load_checkpoint(last)
        if ranks.is_first:
            mend_best(state, last, best, model, model_directory)
        if state.get("lists", size_of_lists) != size_of_lists:
            raise InputError(
                f"resume={cfg.resume}: {size_of_lists} lists and passages to train on, and {state['lists']} before: "
                "give the files that the run was started with"
            )
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, best_step, best_value, results = state["step"], state["best_step"], state["best_value"], state["results"]
        sums = state["sums"].to(device)
        if not ranks.is_first:
            sums = torch.stack([torch.zeros_like(sums[0]), sums[1]])
        restore_random_state(state["random"], ranks.rank, ranks.size, cfg.seed + step)
        overrides = joined_overrides(state.get("overrides", []), overrides)
        log.info("resumed at step %d of %d", step, num_steps)
        if num_steps != state.get("num_steps", num_steps):
            before, now = (set_lr(optimizer, cfg.optimizer, step, steps) for steps in (state["num_steps"], num_steps))
            log.info(
                "the %s schedule now ends at step %d, not %d: the learning rate at step %d is %.3g instead of %.3g",
                cfg.optimizer.schedule, num_steps, state["num_steps"], step, now, before,
            )  # fmt: skip
    elif cfg.task.untrained:
        for task, tester in zip(tasks, testers, strict=True):
            results |= measure_rows(task, {"untrained": tester.rerank(model, cfg.train.max_tokens, precision)})[0]

    def save() -> None:
        check_finite()
        state = {
            "step": step,
            "lists": size_of_lists,
            "best_step": best_step,
            "best_value": best_value,
            "results": results,
            "sums": torch.stack([ranks.sum_on_device(sums[0]), sums[1]]).cpu(),
            "random": ranks.gather(random_state()),
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "num_steps": num_steps,
            "overrides": overrides,
        }
        if ranks.is_first:
            save_checkpoint(last, state)

    def check_finite() -> None:
        if first_bad.item() >= 0:
            query_ids = " ".join(loader.query_ids(int(first_bad)))
            raise InputError(
                f"step {int(first_bad) + 1}: the loss or its gradient is not finite (queries {query_ids}): the last "
                "checkpoint is from before; try a lower optimizer.lr, a longer optimizer.warmup, a smaller "
                "optimizer.max_grad_norm or train.precision=float32"
            )

    if ranks.is_first:
        tracker.start(directory, step)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    warn_of_warmup(cfg.optimizer, num_steps)
    log.info("%.2f million parameters on %s in %s, %d steps", num_parameters / 1e6, device, precision, num_steps)
    if model.layout == "packed" and model.attention_dropout:
        log.info("packed layout: no padding, and no dropout of attention weights (model.layout=padded has it)")
    model.train()
    num_workers = cfg.train.num_workers if cfg.train.num_workers is not None else 2 * (device.type == "cuda")
    batches = loader.batches(step, num_steps, num_workers)
    count_flops = FlopCounter(model)
    num_pairs, num_tokens, num_flops, clock = 0, 0, 0.0, time.perf_counter()
    stopped_by, hidden = 0, None if ranks.is_first else True  # tqdm hides its bar where there is no terminal, too
    bar = tqdm(total=num_steps, initial=step, desc="training", unit="step", disable=hidden)
    with StopRequest() as stop, bar:
        while step < num_steps and (cfg.train.patience is None or step - best_step < cfg.train.patience):
            # One training step: forward and backward through micro-batches of whole lists, one update
            batch = next(batches).to(device)
            lr = set_lr(optimizer, cfg.optimizer, step, num_steps)
            num_terms = 1
            if cfg.loss.reduction == "mean":  # over the lists of all ranks
                num_terms = ranks.sum_on_device(count_terms(batch.target, batch.mask)).clamp(min=1)
            loss_value = torch.zeros((), device=device)
            for part in split_lists(batch, cfg.train.max_tokens):
                # Divided by the terms of the whole step, so that the update does not depend on the micro-batches
                loss_value += backward(model, part, loss_function, num_terms, cfg.train.max_tokens, precision)
            ranks.sum_gradients(model)
            grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), cfg.optimizer.max_grad_norm or float("inf"))
            optimizer.step()
            optimizer.zero_grad()
            # No .item() here: a bad step is noted on the device and read when a line is logged
            bad = ~torch.isfinite(loss_value + grad_norm)
            first_bad = torch.where((first_bad < 0) & bad, step, first_bad)
            sums += torch.stack([loss_value, torch.ones_like(loss_value)])
            num_pairs, num_tokens = num_pairs + len(batch.lengths), num_tokens + len(batch.tokens)
            num_flops += count_flops(batch.lengths)
            step += 1
            bar.update()

            if step % cfg.train.log_every == 0 or step == num_steps:
                check_finite()
                seconds = time.perf_counter() - clock
                loss_sum, num_pairs, num_tokens, num_flops = ranks.sum(sums[0], num_pairs, num_tokens, num_flops)
                metrics = {
                    "train/loss": loss_sum / sums[1].item(),
                    "train/lr": lr,
                    "train/grad_norm": grad_norm.item(),
                    "train/pairs_per_second": num_pairs / seconds,
                    "train/tokens_per_second": num_tokens / seconds,
                }
                if peak_flops(device):
                    metrics["train/mfu"] = num_flops / seconds / (peak_flops(device) * ranks.size)
                tracker.log(step, metrics)
                bar.set_postfix_str(f"loss {metrics['train/loss']:.4f}")
                sums.zero_()
                num_pairs, num_tokens, num_flops, clock = 0, 0, 0.0, time.perf_counter()

            improved = False
            if validators and (step % cfg.train.validate_every == 0 or step == num_steps):
                check_finite()
                paused = time.perf_counter()
                runs = [validator.rerank(model, cfg.train.max_tokens, precision) for validator in validators]
                values = measure_together(validation, runs)
                tracker.log(step, {f"val/{name}": value for name, value in values.items()})
                name, value = next(iter(values.items()))
                improved = value > best_value
                if improved:
                    best_step, best_value = step, value
                    if ranks.is_first:
                        model.save_pretrained(model_directory)
                if ranks.is_first:
                    bar.write(
                        f"step {step}: val/{name} {value:.4f}{' (best so far)' if improved else ''}", file=sys.stderr
                    )
                clock += time.perf_counter() - paused

            stopped_by = int(max(ranks.gather(stop.signal or 0)))
            if stopped_by or improved or step % save_every == 0 or step == num_steps:
                save()
                if improved and ranks.is_first:
                    link_checkpoint(last, best)
            if stopped_by:
                log.info("stopped after step %d and saved; resume with: %s", step, resume_command(cfg, directory))
                raise SystemExit(128 + stopped_by)

    # The best model by validation, or the last one where nothing was validated
    if validators:
        if ranks.is_first:
            model.load_state_dict(CrossEncoder.from_pretrained(model_directory).state_dict())
        ranks.copy_from_first(model)
        model.eval()
        results[f"val/{validation[0].measures[0]}"] = best_value
        log.info("training ended after step %d, best model at step %d", step, best_step)
    elif ranks.is_first:
        model.save_pretrained(model_directory)
        link_checkpoint(last, best)
    results |= {"train/steps": step, "train/seconds": time.perf_counter() - started}

    measured: dict[str, dict] = {}  # task -> row -> values of each query
    for task, tester in zip(tasks, testers, strict=True):
        rows = {"first_stage": task.run} | ({"teacher": task.teacher} if task.teacher else {})
        rows["test"] = tester.rerank(model, cfg.train.max_tokens, precision)
        of_task, measured[task.name] = measure_rows(task, rows)
        results |= of_task
        if ranks.is_first:
            place = task_directory(directory, cfg.task, task.name)
            write_task(place, rows["test"], measured[task.name]["test"], tag="student")
    results |= suite_results(cfg.task, measured)
    per_query = {name: values["test"] for name, values in measured.items()}
    if tasks and ranks.is_first:
        num_queries = {name: len(values) for name, values in per_query.items()}
        print(format_results(results, cfg.task.name, num_queries, parse_measures(cfg.task.measures), {}))
    taus = measure_agreement(cfg, lists, model, precision) if ranks.is_first and not (tasks or validation) else {}
    results |= agreement_results(taus)
    if ranks.is_first:
        command = shlex.join([*invocation("train"), *overrides]) if HydraConfig.initialized() else None
        write_card(model_directory, cfg, results, command)
    tracker.finish(results, model_directory, per_query)
    ranks.finish()
    log.info("model: %s", model_directory)
    if ranks.is_first:
        log_verdict(cfg, directory, results, measured, validation, taus)
    return results


def own_overrides() -> list[str]:
    """Return the overrides of this command, without what it resumes."""
    return [override for override in command_overrides("task") if not override.startswith("resume=")]


def joined_overrides(started: list[str], more: list[str]) -> list[str]:
    """Return the overrides that a run was started with and those that it was resumed with, which come before."""
    keys = {override.partition("=")[0] for override in more}
    return [override for override in started if override.partition("=")[0] not in keys] + more


@hydra.main(config_path="conf", config_name="train", version_base="1.3")
def main(cfg: DictConfig) -> float | None:
    """Train one configuration and return its objective; bad input is answered with one line and exit status 2."""
    return run_job(cfg, check_train, train)


if __name__ == "__main__":
    with exit_on_bad_input(sweep=False):
        refuse_renamed(sys.argv[1:])
    register_schemas()
    main()
