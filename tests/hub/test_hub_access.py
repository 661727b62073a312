"""Who is let in by the local Hub: the real client says what it says to people whom the Hub turns away."""

from pathlib import Path

import pytest
from hub_server import HubServer
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError


README = b"---\nlicense: mit\n---\n# Numbers\n"
DATA = "lab/data"


@pytest.fixture
def api(hub: HubServer) -> HfApi:
    """Of a writer, who has made the repository."""
    api = hub.api(hub.token("alice"))
    api.create_repo(DATA, repo_type="dataset")
    api.upload_file(path_or_fileobj=README, path_in_repo="README.md", repo_id=DATA, repo_type="dataset")
    return api


def status(error: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return error.value.response.status_code


def test_what_is_private_is_not_there_for_others(hub: HubServer, api: HfApi) -> None:
    api.update_repo_settings(DATA, repo_type="dataset", private=True)
    for token, code in ((None, 401), (hub.token("bob"), 404)):
        with pytest.raises(RepositoryNotFoundError) as error:
            hub.api(token).dataset_info(DATA)
        assert status(error) == code
        with pytest.raises(RepositoryNotFoundError):
            hub.api(token).hf_hub_download(DATA, ".gitattributes", repo_type="dataset")
    assert hub.api(hub.token("alice", "read")).dataset_info(DATA).private


def test_what_is_gated_is_listed_but_not_given(hub: HubServer, api: HfApi) -> None:
    hub.gate(DATA, accepted=("carol",))
    hub.add_user("carol")
    assert "README.md" in hub.api().list_repo_files(DATA, repo_type="dataset")
    for token, code in ((None, 401), (hub.token("bob"), 403)):
        with pytest.raises(GatedRepoError, match=f"Access to dataset {DATA} is restricted") as error:
            hub.api(token).hf_hub_download(DATA, "README.md", repo_type="dataset")
        assert status(error) == code
        with pytest.raises(GatedRepoError):
            hub.api(token).auth_check(DATA, repo_type="dataset")
    for user in ("carol", "alice"):
        path = hub.api(hub.token(user, "read")).hf_hub_download(DATA, "README.md", repo_type="dataset")
        assert Path(path).read_bytes() == README


def test_only_writers_with_a_token_to_write_write(hub: HubServer, api: HfApi) -> None:
    head = hub.repo(DATA).commits[0].sha
    refusals = {
        "Forbidden: you must use a write token to upload to a repository.": hub.token("alice", "read"),
        "pass `create_pr=1` as a query parameter to create a Pull Request": hub.token("bob"),
    }
    for message, token in refusals.items():
        with pytest.raises(HfHubHTTPError, match=message) as error:
            hub.api(token).upload_file(path_or_fileobj=b"", path_in_repo="n", repo_id=DATA, repo_type="dataset")
        assert status(error) == 403
        with pytest.raises(HfHubHTTPError, match=message):
            hub.api(token).create_tag(DATA, tag="v1", repo_type="dataset")
        with pytest.raises(HfHubHTTPError, match="You don't have the rights to create a model under this namespace"):
            hub.api(token).create_repo("lab/model")
    assert hub.repo(DATA).commits[0].sha == head and hub.repo(DATA).tags == {}
    with pytest.raises(HfHubHTTPError, match=r"401 Unauthorized.*\n.*\n\nInvalid username or password\.") as error:
        hub.api().create_repo("alice/model")
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        hub.api("hf_wrong").whoami()
    me = api.whoami()
    assert (me["name"], [org["name"] for org in me["orgs"]]) == ("alice", ["lab"])
    assert me["auth"]["accessToken"]["role"] == "write"
