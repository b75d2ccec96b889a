"""The other libraries' part in benchmarks/peers.py: train on its lists, and re-rank its test lists.

    python -m benchmarks.peer_workers train lightning-ir setup.json
    python -m benchmarks.peer_workers rerank sentence-transformers setup.json

Imports nothing from distill/: lightning-ir runs in a separate environment. The setup names all files and values; the
answer is a JSON file with seconds, the loss of each step, and versions.
"""

import json
import math
import platform
import re
import sys
import time
from collections.abc import Callable
from importlib import metadata
from itertools import islice
from pathlib import Path

import torch

PACKAGES = ("torch", "transformers", "sentence-transformers", "lightning-ir", "lightning")
ONE_HOT = 1000.0  # softmax of this and zeros is exactly 1 and 0 in float32


def main() -> None:
    """Do the named part and write its answer."""
    part, library, path = sys.argv[1:]
    setup = json.loads(Path(path).read_text())
    torch.manual_seed(setup["seed"])
    answer = PARTS[part, library](setup)
    answer["versions"] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            answer["versions"][package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    Path(setup["answer"]).write_text(json.dumps(answer))


def read_lines(path: str) -> list[dict]:
    """Read a JSONL file."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def gains(loss: str, targets: list[float]) -> list[float]:
    """Return what both libraries learn from, higher = better: for LCE 1 and 0, for RankNet the negative ranks."""
    return [float(target > 0) for target in targets] if loss == "lce" else [-target for target in targets]


def is_of_head(name: str, model) -> bool:
    """Say whether a parameter is of the linear layer that gives the score, the only one with a single output."""
    module = model.get_submodule(name.rpartition(".")[0])
    return isinstance(module, torch.nn.Linear) and module.out_features == 1


# ---- sentence-transformers -------------------------------------------------------------------------------------------


def sentence_transformers_loss(model, loss: str):
    """Return the loss that equals ours.

    LCE is ListNetLoss, cross-entropy with a softmax of the labels, for labels whose softmax is 1 and 0. RankNetLoss is
    ours with natural logarithms.
    """
    from sentence_transformers.cross_encoder import losses

    return losses.ListNetLoss(model) if loss == "lce" else losses.RankNetLoss(model, reduction_log="natural")


def sentence_transformers_labels(loss: str, targets: list[float]) -> list[float]:
    """Return the labels for that loss."""
    scale = ONE_HOT if loss == "lce" else 1.0
    return [scale * gain for gain in gains(loss, targets)]


def train_sentence_transformers(setup: dict) -> dict:
    """Train with CrossEncoderTrainer, and its own AdamW and weight decay.

    Keeps the models after every `save_every` steps; what saving takes is not in the seconds.
    """
    from datasets import Dataset
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.sampler import DefaultBatchSampler
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from torch.utils.data import SequentialSampler
    from transformers import TrainerCallback

    num_lists = setup["batch_size"] * len(setup["shares"])  # a shorter training takes fewer
    lists = read_lines(setup["lists"])[:num_lists]
    rows = {"query": [each["query"] for each in lists], "passages": [each["passages"] for each in lists]}
    rows["labels"] = [sentence_transformers_labels(setup["loss"], each["targets"]) for each in lists]
    model = CrossEncoder(setup["student"], device=setup["device"], trust_remote_code=False)
    loss = sentence_transformers_loss(model, setup["loss"])
    losses: list[torch.Tensor] = []
    loss.register_forward_hook(lambda _module, _inputs, value: losses.append(value.detach()))

    def in_order(dataset, batch_size: int, drop_last: bool, **_) -> DefaultBatchSampler:
        return DefaultBatchSampler(SequentialSampler(dataset), batch_size, drop_last)

    of_head = [f"{re.escape(name)}$" for name, _ in model.named_parameters() if is_of_head(name, model)]
    arguments = CrossEncoderTrainingArguments(
        output_dir=setup["directory"],
        seed=setup["seed"],
        num_train_epochs=1,
        per_device_train_batch_size=setup["batch_size"],
        batch_sampler=in_order,
        learning_rate=setup["lr"],
        learning_rate_mapping=dict.fromkeys(of_head, setup["head_lr"]) if setup["head_lr"] else {},
        weight_decay=setup["weight_decay"],
        max_grad_norm=setup["max_grad_norm"] or 0.0,
        bf16=setup["precision"] == "bfloat16",
        use_cpu=setup["device"] == "cpu",
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = CrossEncoderTrainer(model=model, args=arguments, train_dataset=Dataset.from_dict(rows), loss=loss)
    # Transformers' own warm-up begins with a step at learning rate 0: this takes the very rates of our steps
    shares = setup["shares"]
    trainer.create_optimizer()
    trainer.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
        trainer.optimizer, lambda step: shares[min(step, len(shares) - 1)]
    )
    snapshots: list[tuple[int, float]] = []  # step, seconds of training until then
    start, saving = time.perf_counter(), 0.0

    class Snapshots(TrainerCallback):
        """Saves the model, and notes the time of training so far."""

        def on_step_end(self, args, state, control, **_) -> None:
            nonlocal saving
            if setup["save_every"] and state.global_step % setup["save_every"] == 0:
                if setup["device"] == "cuda":
                    torch.cuda.synchronize()  # or the step's own work would count as saving
                now = time.perf_counter()
                snapshots.append((state.global_step, now - start - saving))
                model.save_pretrained(f"{setup['model']}-{state.global_step}")
                saving += time.perf_counter() - now

    trainer.add_callback(Snapshots())
    trainer.train()
    seconds = time.perf_counter() - start - saving
    model.save_pretrained(setup["model"])
    return {"seconds": seconds, "losses": [value.item() for value in losses], "snapshots": snapshots}


def rerank_sentence_transformers(setup: dict) -> dict:
    """Score with `predict`, which sorts pairs by length."""
    from sentence_transformers import CrossEncoder

    lists = read_lines(setup["lists"])
    model = CrossEncoder(setup["model"], device=setup["device"], trust_remote_code=False)
    pairs = [(each["query"], passage) for each in lists for passage in each["passages"]]
    start = time.perf_counter()
    scores = model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False).tolist()
    seconds = time.perf_counter() - start
    rest = iter(scores)
    write_run(setup["run"], lists, [list(islice(rest, len(each["passages"]))) for each in lists])
    return {"seconds": seconds}


# ---- lightning-ir ----------------------------------------------------------------------------------------------------


def train_lightning_ir(setup: dict) -> dict:
    """Train with Lightning's Trainer; InfoNCE and RankNet are the losses that equal ours."""
    from lightning import Callback, Trainer
    from lightning_ir import CrossEncoderModule, InfoNCE, RankNet, TrainBatch
    from torch.utils.data import DataLoader

    lists = read_lines(setup["lists"])
    sizes = {len(each["passages"]) for each in lists}
    if len(sizes) > 1:
        raise SystemExit(f"lightning-ir mixes lists of {min(sizes)} to {max(sizes)} passages: it needs equal ones")
    batches, size = [], setup["batch_size"]
    for first in range(0, len(lists), size):
        of_step = lists[first : first + size]
        targets = torch.tensor([gains(setup["loss"], each["targets"]) for each in of_step])
        texts = [each["query"] for each in of_step], [each["passages"] for each in of_step]
        batches.append(TrainBatch(*texts, query_ids=[each["query_id"] for each in of_step], targets=targets))
    loss = InfoNCE() if setup["loss"] == "lce" else RankNet()
    module = CrossEncoderModule(model_name_or_path=setup["student"], loss_functions=[loss])
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}  # of a peak learning rate and a weight decay
    for name, each in module.named_parameters():
        lr = setup["head_lr"] if setup["head_lr"] and is_of_head(name, module) else setup["lr"]
        groups.setdefault((lr, setup["weight_decay"] if each.dim() >= 2 else 0.0), []).append(each)
    peaks = [lr for lr, _ in groups]
    grouped = [{"params": params, "lr": lr, "weight_decay": decay} for (lr, decay), params in groups.items()]
    module._optimizer = torch.optim.AdamW(grouped)  # set_optimizer knows no groups
    losses: list[torch.Tensor] = []

    class Steps(Callback):
        """Sets the learning rates before each step, and keeps its loss."""

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            for group, peak in zip(trainer.optimizers[0].param_groups, peaks, strict=True):
                group["lr"] = peak * setup["shares"][batch_idx]

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
            losses.append(outputs["loss"].detach())

    trainer = Trainer(
        accelerator="gpu" if setup["device"] == "cuda" else "cpu",
        devices=1,
        max_epochs=1,
        precision="bf16-mixed" if setup["precision"] == "bfloat16" else "32-true",
        gradient_clip_val=setup["max_grad_norm"],
        callbacks=[Steps()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=setup["directory"],
    )
    start = time.perf_counter()
    trainer.fit(module, DataLoader(batches, batch_size=None))
    seconds = time.perf_counter() - start
    module.model.save_pretrained(setup["model"])
    module.tokenizer.save_pretrained(setup["model"])
    return {"seconds": seconds, "losses": [value.item() for value in losses]}


def rerank_lightning_ir(setup: dict) -> dict:
    """Score one query at a time, which is its fastest way."""
    from lightning_ir import CrossEncoderModule

    lists = read_lines(setup["lists"])
    module = CrossEncoderModule(model_name_or_path=setup["model"]).eval().to(setup["device"])
    start = time.perf_counter()
    scores = [module.score([each["query"]], [each["passages"]]).scores.flatten().tolist() for each in lists]
    seconds = time.perf_counter() - start
    write_run(setup["run"], lists, scores)
    return {"seconds": seconds}


def write_run(path: str, lists: list[dict], scores: list[list[float]]) -> None:
    """Write a TREC run, best first."""
    with open(path, "w", encoding="utf-8") as file:
        for each, values in zip(lists, scores, strict=True):
            if not all(map(math.isfinite, values)):
                raise SystemExit(f"query {each['query_id']}: a score is not finite")
            ranked = sorted(zip(values, each["doc_ids"], strict=True), key=lambda pair: -pair[0])
            for rank, (value, doc_id) in enumerate(ranked, start=1):
                file.write(f"{each['query_id']} Q0 {doc_id} {rank} {value:.9g} peer\n")


PARTS: dict[tuple[str, str], Callable[[dict], dict]] = {
    ("train", "sentence-transformers"): train_sentence_transformers,
    ("rerank", "sentence-transformers"): rerank_sentence_transformers,
    ("train", "lightning-ir"): train_lightning_ir,
    ("rerank", "lightning-ir"): rerank_lightning_ir,
}

if __name__ == "__main__":
    main()
