"""What the clients of the Hugging Face Hub raise, as one line that says what to do."""

from contextlib import contextmanager

from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
)

from bitlaw import InputError
from bitlaw.data.network import reason

LOGIN = "set HF_TOKEN (or run `hf auth login`)"


@contextmanager
def explained(repository, *what):
    """Turn what huggingface_hub raises about `repository` ("datasets/..." for a data set) into an InputError.

    what: revision and file, for the line. The error's __cause__ is the first one, as the client raised it.
    """
    try:
        yield
    except (HTTPError, OSError, RevisionResolutionError, RuntimeError, ValueError) as error:
        first = error.__cause__ if isinstance(error, (LocalEntryNotFoundError, RevisionResolutionError)) else None
        line = " ".join(map(str, (repository, *what)))
        raise InputError(f"{line}: {remedy(first or error, repository)}") from (first or error)


def remedy(error, repository):
    """What `error` means and what to do, in one line."""
    page = f"{constants.ENDPOINT}/{repository}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, OfflineModeIsEnabled) or constants.is_offline_mode():
        return (
            f"not in the cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE is set; "
            "run once without it, or let HF_HOME point to a cache that has it"
        )
    if isinstance(error, GatedRepoError):
        if get_token():
            return f"its owners have not admitted the account of your token; ask for access at {page} and wait for it"
        return f"its owners want their terms accepted first; accept them at {page}, then {LOGIN}"
    if isinstance(error, RepositoryNotFoundError):
        return f"no such repository, or a private one; correct its name, or {LOGIN} for an account that may read it"
    if isinstance(error, RevisionNotFoundError):
        return f"no such revision; {page}/tree/main lists the branches; correct `revision` or `steps`"
    if isinstance(error, RemoteEntryNotFoundError):
        return f"no such file; see {page}/tree/main"
    if status == 401:
        return f"the Hub does not know your token; {LOGIN} to a valid one, or remove it if the repository is public"
    if status == 403:
        return f"your token may not read this; {LOGIN} to one with read access"
    if status == 429:
        wait = f"{after} seconds" if (after := error.response.headers.get("Retry-After")) else "some minutes"
        return f"too many requests; run again in {wait}; {LOGIN} to be allowed more"
    if status:
        return f"the Hub answers with status {status}; run again later; a checkpoint's complete files are kept"
    return (
        f"{constants.ENDPOINT} cannot be reached or broke off ({reason(error)}); check the network, its proxy and "
        "HF_ENDPOINT and run again, or set HF_HUB_OFFLINE=1 if the cache in HF_HOME has it"
    )
