"""How a model is used, as its card shows it: code for each format, with what its library does differently.

use("onnx")                  # of an exported directory
own_use(cfg)                 # of a trained one: as sentence-transformers opens it, or as only this library does
"""

import os
import re

from omegaconf import DictConfig

from distill.export.onnx import OPSET
from distill.models.locate import locate_model

HUB_NAME = re.compile(r"[\w.-]{1,96}(?:/[\w.-]{1,96})?", re.ASCII)
SCORE = """\
query, passages = "how do bees find home", ["Trains follow rails.", "Bees steer by the sun."]
"""
CUT = """\
This code cuts a long pair as a whole, but the model was trained on queries and passages cut separately, to the lengths
above. To get the scores that were measured, cut longer texts to these lengths first."""
CUT_FIRST = (
    "This code does not cut texts: a prompt that is cut has no end. Cut longer texts to the lengths above first."
)
USES = {
    "sentence-transformers": f"""\
from sentence_transformers import CrossEncoder      # 6.2 or newer

model = CrossEncoder("MODEL")
{SCORE}print(model.rank(query, passages))
""",
    "lightning-ir": f"""\
from lightning_ir import CrossEncoderModule         # 0.0.6

model = CrossEncoderModule(model_name_or_path="MODEL").eval()
{SCORE}print(model.score(query, passages).scores)
""",
    "transformers": f"""\
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

model = AutoModelForSequenceClassification.from_pretrained("MODEL").eval()
tokenizer = AutoTokenizer.from_pretrained("MODEL")
{SCORE}pairs = tokenizer([query] * len(passages), passages, padding=True, truncation=True, return_tensors="pt")
with torch.inference_mode():
    print(model(**pairs).logits[:, 0])
""",
    "onnx": f"""\
import numpy as np
import onnxruntime                                  # VERSION or newer
from transformers import AutoTokenizer

directory = "MODEL"
session = onnxruntime.InferenceSession(f"{{directory}}/onnx/model.onnx")
tokenizer = AutoTokenizer.from_pretrained(directory)
{SCORE}pairs = tokenizer([query] * len(passages), passages, padding=True, truncation=True, return_tensors="np")
inputs = {{given.name: pairs[given.name].astype(np.int64) for given in session.get_inputs()}}
print(session.run(None, inputs)[0][:, 0])
""",
}
USES["onnx-int8"], USES["bert"] = USES["onnx"], USES["sentence-transformers"]
USES["transformers-prompt"] = USES["transformers"].replace(
    'pairs = tokenizer([query] * len(passages), passages, padding=True, truncation=True, return_tensors="pt")\n',
    """\
messages = [[{"role": "query", "content": query}, {"role": "document", "content": passage}] for passage in passages]
prompts = [tokenizer.apply_chat_template(pair, tokenize=False) for pair in messages]
pairs = tokenizer(prompts, padding=True, add_special_tokens=False, return_tensors="pt")
""",
)
ADAPTERS = f"""\
```python
from distill import CrossEncoder

model = CrossEncoder.from_pretrained("MODEL", base="BACKBONE")
{SCORE}print(model.rank(query, passages))
```

These are the adapters and the head of a model, without its backbone: NAMED. Its weights are checked. Other libraries
open the whole model, which this writes:

```
python -m distill export model=MODEL base=BACKBONE format=sentence-transformers output=NEW_DIRECTORY
```
"""
WITH_SCORES = f"""\
```python
from distill import CrossEncoder

model = CrossEncoder.from_pretrained("MODEL")
{SCORE}print(model.rank(query, passages, first_stage_scores=[7.1, 11.4]))   # of the whole list, from the first stage
```

No other library opens this directory: it would leave out the first stage's scores.
"""


def use(target: str, repo_id: str | None = None, *, in_prompt: bool = False, opset: int = OPSET) -> str:
    """Return the code of a card for an exported format, and what it does not do.

    repo_id: as in `exported_card`. in_prompt: whether the model reads pairs within a prompt. opset: of an ONNX graph.
    """
    by_hand = in_prompt and target == "transformers"
    code = USES["transformers-prompt" if by_hand else target]
    code = code.replace("VERSION", "1.14" if opset <= OPSET else "1.23")  # of onnxruntime
    if repo_id is not None and target.startswith("onnx"):
        code = "import huggingface_hub\n" + code.replace('"MODEL"', 'huggingface_hub.snapshot_download("MODEL")')
    cut = "" if target == "lightning-ir" else f"\n{CUT_FIRST if by_hand else CUT}\n"
    return f"```python\n{code.replace('MODEL', repo_id or 'MODEL')}```\n{cut}"


def has_prompt(model) -> bool:
    """Whether a CrossEncoder reads its pairs within a prompt, which its tokenizer's chat template writes."""
    return model is not None and model.is_decoder and model.template.keeps_query


def own_use(cfg: DictConfig) -> str:
    """Return how the trained directory is used: as sentence-transformers opens it, or as only this library does."""
    reads_scores = cfg.model.first_stage_score is not None
    if cfg.model.lora.rank is None or cfg.model.lora.save == "merged":
        return WITH_SCORES if reads_scores else use("sentence-transformers")
    name, directory = str(cfg.backbone.name), locate_model(cfg.backbone.name)
    known = HUB_NAME.fullmatch(name) and (directory != name or not os.path.isdir(name))  # to others, too
    named = f"`{name}`" if known else "the directory that it was trained from"
    text = ADAPTERS.replace("BACKBONE", name if known else "BACKBONE").replace("NAMED", named)
    scores = "model.rank(query, passages, first_stage_scores=[7.1, 11.4])"
    return text.replace("model.rank(query, passages)", scores) if reads_scores else text
