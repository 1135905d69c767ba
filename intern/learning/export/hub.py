"""Exports go to the Hugging Face hub, or to a server that speaks like it: a folder and a token in, an address out.

A repository is made private unless it is said otherwise, and one that is public already gets nothing that was meant to
be private. Nothing here looks for a token: who calls knows whose it is.
"""

from __future__ import annotations

import re
from pathlib import Path

from intern.errors import Conflict, InternError, InvalidInput, NotAllowed, NotAuthenticated, StoreFailure

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_REPOSITORY = re.compile(f"{_PART}/{_PART}")


def check_repository(repository: str) -> None:
    """Raises InvalidInput unless it is OWNER/REPO, as the hub allows it."""
    if not _REPOSITORY.fullmatch(repository) or ".." in repository or "--" in repository:
        raise InvalidInput(f"'{repository[:120]}' is no repository of the hub. Write OWNER/REPO.", param="push")


def push(folder: Path, repository: str, *, token: str, private: bool, message: str, endpoint: str | None = None) -> str:
    """Upload a folder as one commit to a model repository, which is made if there is none; returns its address.

    Files of the repository that the folder does not have stay there. Raises InvalidInput for a name that is none,
    NotAllowed when the repository is public and `private` was asked or the token may not write there, NotAuthenticated
    for a token that the hub does not know, Conflict when somebody else committed meanwhile, StoreFailure when the hub
    cannot be reached or refuses.
    """
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    check_repository(repository)
    api = HfApi(endpoint=endpoint, token=token)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        if private and not api.repo_info(repository).private:
            raise NotAllowed(f"The repository '{repository}' is public. Push with --public, or to another one.")
        return str(api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message))
    except HfHubHTTPError as error:
        raise _refusal(error, repository) from error
    except OfflineModeIsEnabled as error:
        raise StoreFailure("The hub's client is offline (HF_HUB_OFFLINE). Unset it and push again.") from error
    except (httpx2.HTTPError, OSError) as error:
        raise StoreFailure(f"The hub cannot be reached: {type(error).__name__}.") from error


def _refusal(error: object, repository: str) -> InternError:
    status = getattr(getattr(error, "response", None), "status_code", 0)
    reason = getattr(error, "server_message", None) or f"status {status}"
    if status == 401:
        return NotAuthenticated("The hub does not know this token. Log in with 'hf auth login', or set HF_TOKEN.")
    if status == 403:
        return NotAllowed(f"The token may not write to '{repository}': {reason}. Make one that may on the hub's page.")
    if status in (409, 412):
        return Conflict(f"'{repository}' was changed by somebody else at the same time. Push again.")
    return StoreFailure(f"The hub refused '{repository}': {reason}.")
