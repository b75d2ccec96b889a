"""A directory onto the Hugging Face Hub: push_to_hub(Path("exported"), "OWNER/NAME")."""

from pathlib import Path

from distill.errors import InputError


def push_to_hub(directory: Path, repo_id: str, private: bool = True) -> str:
    """Upload a model's directory as one commit and return its address; a repository that is missing is made.

    The key is huggingface_hub's own: HF_TOKEN, or what `hf auth login` has kept. Raises InputError with the reason
    where the Hub cannot be reached or refuses.
    """
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    api = HfApi()
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        found = api.upload_folder(repo_id=repo_id, folder_path=directory, commit_message=f"Upload {directory.name}")
    except (HFValidationError, LocalTokenNotFoundError, HfHubHTTPError, httpx.HTTPError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"hub={repo_id}: not uploaded ({reason}); the model lies in {directory}") from None
    return str(found.commit_url)
