"""The tools of the Hugging Face Hub, unchanged: they know nothing of this server but its address."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stateroom import Client, Model
from tests.support.docs import python_of
from tests.support.server import Server

transformers = pytest.importorskip("transformers", reason="make integrations installs it")
pytest.importorskip("huggingface_hub", reason="make integrations installs it")

READ = """
import json, sys
from pathlib import Path
from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, list_models, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
from transformers import AutoModel

repo, original = sys.argv[1], Path(sys.argv[2])
api = HfApi()
folder = Path(snapshot_download(repo))
names = sorted(each.name for each in original.iterdir())
assert sorted(api.list_repo_files(repo)) == names
for name in names:
    assert (folder / name).read_bytes() == (original / name).read_bytes(), name
    assert Path(hf_hub_download(repo, name, revision="v1")).read_bytes() == (original / name).read_bytes(), name
assert HfFileSystem().cat_file(f"hf://{repo}/config.json") == (original / "config.json").read_bytes()
assert [each.name for each in api.list_repo_refs(repo).tags] == ["prod"]
assert [each.commit_id for each in api.list_repo_commits(repo)] == [api.model_info(repo).sha]
assert repo in [each.id for each in list_models(author=repo.split("/")[0])]
for error, ask in (
    (RepositoryNotFoundError, lambda: snapshot_download("nobody/nothing")),
    (RevisionNotFoundError, lambda: hf_hub_download(repo, "config.json", revision="v9")),
    (EntryNotFoundError, lambda: hf_hub_download(repo, "none.json")),
):
    try:
        ask()
    except error:
        continue
    raise AssertionError(error)
assert not api.file_exists(repo, "none.json") and api.file_exists(repo, "config.json")
model = AutoModel.from_pretrained(repo, revision="prod")
print(json.dumps(sum(float(each.double().sum()) for each in model.state_dict().values())))
"""

WRITE = """
import sys
from pathlib import Path
from huggingface_hub import CommitOperationAdd, HfApi, PyTorchModelHubMixin, hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
import torch
from transformers import AutoModel

repo, folder = sys.argv[1], Path(sys.argv[2])
api = HfApi()
assert not api.repo_exists(repo)
assert api.create_repo(repo).repo_id == api.create_repo(repo, exist_ok=True).repo_id == repo
assert api.repo_exists(repo)
api.upload_file(path_or_fileobj=b"hello", path_in_repo="README.md", repo_id=repo)
first = api.upload_folder(folder_path=folder, repo_id=repo, commit_message="first")
assert api.upload_folder(folder_path=folder, repo_id=repo).oid == first.oid == api.model_info(repo).sha
sizes = {each.rfilename: each.size for each in api.model_info(repo, files_metadata=True).siblings}
assert sizes == {"README.md": 5} | {each.name: each.stat().st_size for each in folder.iterdir()}
second = api.upload_file(path_or_fileobj=b"other", path_in_repo="README.md", repo_id=repo, commit_message="second")
assert [each.title for each in api.list_repo_commits(repo)] == ["second", "first"]
assert Path(hf_hub_download(repo, "README.md", revision=first.oid)).read_bytes() == b"hello"
got = Path(snapshot_download(repo))
for each in folder.iterdir():
    assert (got / each.name).read_bytes() == each.read_bytes(), each
api.create_tag(repo, tag="v1", revision=second.oid)
assert api.model_info(repo, revision="v1").sha == second.oid
api.delete_tag(repo, tag="v1")
assert api.list_repo_refs(repo).tags == []
assert [each.size for each in api.get_paths_info(repo, ["README.md", "nothing"])] == [5]
try:
    api.create_branch(repo, branch="dev")
    raise AssertionError("another branch")
except HfHubHTTPError as error:
    assert "one branch" in str(error)
try:
    api.create_commit(repo, [CommitOperationAdd("x", b"x")], commit_message="x", parent_commit=first.oid)
    raise AssertionError("a commit on an old parent")
except HfHubHTTPError as error:
    assert error.response.status_code == 412
api.delete_file("README.md", repo)
assert "README.md" not in api.list_repo_files(repo)


class Net(torch.nn.Module, PyTorchModelHubMixin):
    def __init__(self, hidden=8):
        super().__init__()
        self.fc = torch.nn.Linear(hidden, 300)


net = Net(hidden=400)
net.push_to_hub(f"{repo}-mixin")
assert torch.equal(Net.from_pretrained(f"{repo}-mixin").fc.weight, net.fc.weight)
pushed = AutoModel.from_pretrained(folder)
pushed.push_to_hub(f"{repo}-pushed")
again = AutoModel.from_pretrained(f"{repo}-pushed").state_dict()
assert all(torch.equal(again[key], value) for key, value in pushed.state_dict().items())
"""


SHARED = """
import sys
from pathlib import Path
from huggingface_hub import HfApi, snapshot_download

repo, folder, api = sys.argv[1], Path(sys.argv[2]), HfApi()
api.create_repo(repo)
for message in ("first", "second"):
    commit = api.upload_folder(folder_path=folder, repo_id=repo, commit_message=message)
    got = Path(snapshot_download(repo, revision=commit.oid))
    for each in folder.iterdir():
        assert (got / each.name).read_bytes() == each.read_bytes(), each
    with (folder / "vocab.txt").open("a") as file:
        file.write("one more word")
"""


@pytest.fixture
def model(client: Client, model_name: str) -> Model:
    """A model whose name the Hub allows, too."""
    return client.model(model_name.replace("--", "-")[:96])


@pytest.fixture(params=["10GB", "200KB"], ids=["one-file", "shards"])
def pushed(request: pytest.FixtureRequest, model: Model, tmp_path: Path) -> tuple[Path, float]:
    """A folder that is the model's first version, with the alias prod, and the sum of its weights."""
    config = transformers.BertConfig(
        hidden_size=64, num_hidden_layers=4, num_attention_heads=4, intermediate_size=128, vocab_size=500
    )
    net = transformers.BertModel(config)
    folder = tmp_path / "bert"
    net.save_pretrained(folder, max_shard_size=request.param)
    model.upload(folder)
    model.alias("prod", 1)
    return folder, sum(float(each.double().sum()) for each in net.state_dict().values())


def run(code: str, server: Server, home: Path, *args: str, by_xet: bool = True) -> str:
    """Run code with an empty cache, and return what it prints."""
    env = {**os.environ, "HF_ENDPOINT": server.base_url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    env |= {"NO_PROXY": "*", "HF_HUB_DISABLE_PROGRESS_BARS": "1"} | ({} if by_xet else {"HF_HUB_DISABLE_XET": "1"})
    done = subprocess.run([sys.executable, "-c", code, *args], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_a_folder_is_a_repository(server: Server, model: Model, pushed: tuple[Path, float], tmp_path: Path) -> None:
    folder, total = pushed
    printed = run(READ, server, tmp_path / "home", model.name, str(folder))
    assert json.loads(printed.splitlines()[-1]) == pytest.approx(total)


@pytest.mark.parametrize("by_xet", [True, False], ids=["xet", "lfs"])
def test_the_tools_write(
    server: Server, model: Model, pushed: tuple[Path, float], tmp_path: Path, by_xet: bool
) -> None:
    run(WRITE, server, tmp_path / "home", f"{model.name[:80]}-new", str(pushed[0]), by_xet=by_xet)


def test_files_that_share_chunks_are_uploaded_by_xet(server: Server, model: Model, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    weights = {name: torch.randn(500_000) for name in ("first", "second", "third")}
    zeros = torch.zeros(20_000_000)
    save_file({**weights, "zeros": zeros}, folder / "model.safetensors", metadata={"format": "pt"})
    torch.save({"epoch": 3, **weights}, folder / "checkpoint.pt")
    (folder / "vocab.txt").write_text("".join(f"word {n}\n" for n in range(100_000)))
    run(SHARED, server, tmp_path / "home", model.name, str(folder))


def test_the_code_in_the_document_works(
    server: Server, model: Model, pushed: tuple[Path, float], tmp_path: Path
) -> None:
    code = python_of("docs/hugging-face.md").replace("nlp/bert", model.name)
    code = code.replace("nlp/new", f"{model.name[:80]}-new")
    run(code, server, tmp_path / "home")
