"""The model of a benchmark, in the forms that its contenders open.

    path = ranking_model("collections/all-MiniLM-L6-v2", directory)      # whatever evaluate.py or train.py would take
    path = training_model("googleq-minilm-3", directory)
    paths = forms({"packed": path, "lightning-ir": path}, directory, race)

All contenders get the same weights, linear layer included, and read the same number of tokens.
"""

from pathlib import Path

from distill.models.locate import locate_model

PEERS = ("sentence-transformers", "lightning-ir")
HEAD_STD = 0.5  # of a new linear layer's weights, so that scores differ


def is_ours(contender: str) -> bool:
    """Whether a contender is this project, rather than another library."""
    return not contender.startswith(PEERS)


def ranking_model(name: str, directory: Path) -> str:
    """Return where a cross-encoder is; an encoder gets a linear layer, and is written to the directory.

    name: directory, packaged model or Hub id. Raises InputError for what can be neither.
    """
    import torch

    from distill.errors import InputError
    from distill.models.cross_encoder import CrossEncoder

    try:
        CrossEncoder.from_pretrained(name)
    except InputError:
        torch.manual_seed(0)
        model = CrossEncoder.from_backbone(name).eval()
        torch.nn.init.normal_(model.head.weight, std=HEAD_STD)
        return _saved(model, directory)
    return locate_model(name)


def training_model(name: str, directory: Path) -> str:
    """Write the student that train.py would begin with; raises InputError for what cannot be trained."""
    import torch

    from distill.models.cross_encoder import CrossEncoder

    torch.manual_seed(0)
    return _saved(CrossEncoder.from_backbone(name), directory)


def _saved(model, directory: Path) -> str:
    model.save_pretrained(directory / "model")
    return str(directory / "model")


def forms(models: dict[str, str], directory: Path, race) -> dict[str, str]:
    """Return where each contender finds its model; those whose library cannot express it are left out of the race."""
    from distill.errors import InputError

    found = {}
    for contender, path in models.items():
        try:
            found[contender] = form_of(contender, path, directory)
        except InputError as error:
            race.leave_out(contender, str(error))
    return found


def form_of(contender: str, path: str, directory: Path) -> str:
    """Return where a contender finds the model; raises InputError where its library cannot express it."""
    from distill.export.formats import export
    from distill.models.cross_encoder import CrossEncoder
    from distill.models.json_files import read_object
    from distill.models.lightning_ir import is_lightning_ir

    config = Path(path) / "config.json"
    of_lightning = config.is_file() and is_lightning_ir(read_object(config))
    if is_ours(contender) or of_lightning == (contender == "lightning-ir"):
        return path
    target = "lightning-ir" if contender == "lightning-ir" else "sentence-transformers"
    written = directory / target
    if not written.is_dir():
        export(CrossEncoder.from_pretrained(path), written, target)
    return str(written)
