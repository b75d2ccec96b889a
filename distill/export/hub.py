"""A directory onto the Hugging Face Hub: push_to_hub(Path("exported"), "OWNER/NAME")."""

import logging
from pathlib import Path

from distill.errors import InputError


def push_to_hub(directory: Path, repo_id: str, private: bool = True) -> str:
    """Upload a model's directory as one commit and return its address; a repository that is missing is made.

    The key is huggingface_hub's own: HF_TOKEN, or what `hf auth login` has kept. Raises InputError with the reason
    where the Hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi

    for client in ("httpx", "httpx2"):  # of older and newer huggingface_hub; they would log every request
        logging.getLogger(client).setLevel(logging.WARNING)
    api = HfApi()
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        found = api.upload_folder(repo_id=repo_id, folder_path=directory, commit_message=f"Upload {directory.name}")
    except Exception as error:  # its own, its HTTP client's and the system's are many
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"hub={repo_id}: not uploaded ({reason}): check connection, name and HF_TOKEN (or `hf auth login`); the "
            f"model lies in {directory}"
        ) from None
    return str(found.commit_url)
