"""Upload a directory to the Hugging Face Hub: push_to_hub(Path("exported"), "OWNER/NAME")."""

import logging
from pathlib import Path

from distill.errors import InputError


def push_to_hub(directory: Path, repo_id: str, *, private: bool = True) -> str:
    """Upload a model's directory as one commit and return its address; create the repository if it does not exist.

    huggingface_hub finds the access token: HF_TOKEN, or the one that `hf auth login` stored. Raises InputError with the
    reason if the Hub cannot be reached or refuses the upload.
    """
    from huggingface_hub import HfApi

    for client in ("httpx", "httpx2"):  # used by older and newer huggingface_hub; they would log every request
        logging.getLogger(client).setLevel(logging.WARNING)
    api = HfApi()
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=repo_id, folder_path=directory, commit_message=f"Upload {directory.name}")
    except Exception as error:  # huggingface_hub, its HTTP client and the system raise many kinds
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"hub={repo_id}: not uploaded ({reason}): check connection, name and HF_TOKEN (or `hf auth login`); the "
            f"model is in {directory}"
        ) from None
    return str(commit.commit_url)
