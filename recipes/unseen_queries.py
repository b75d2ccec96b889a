"""Print the training queries, `id<TAB>text`, that a finished run has not drawn: a teacher ranks these as new ones.

python recipes/unseen_queries.py outputs/real/googleq/labels-6/0 > unseen.tsv
"""

import json
import sys
from pathlib import Path

from omegaconf import OmegaConf

from distill.data.lists import read_lists
from distill.data.loader import BatchLoader
from distill.data.pairs import PairTemplate
from distill.models.parts import load_tokenizer
from distill.retrieval.fused_teacher import with_fused_teacher
from distill.sources.texts import read_queries

run = Path(sys.argv[1])
cfg = OmegaConf.load(run / "config.yaml")
OmegaConf.update(cfg, "model.first_stage_score", cfg.model.get("first_stage_score"), force_add=True)
num_steps = int(json.loads((run / "results.json").read_text())["train/steps"])
tokenizer = load_tokenizer(cfg.backbone.name)
lists = read_lists(with_fused_teacher(cfg), tokenizer)
loader = BatchLoader(lists, PairTemplate.of(tokenizer), cfg)
seen = {query_id for step in range(num_steps) for query_id in loader.query_ids(step)}
for query_id, text in read_queries(cfg.data.queries).items():
    if query_id not in seen:
        print(query_id, text, sep="\t")
