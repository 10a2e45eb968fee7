"""A script that uploads, lists, changes, downloads and deletes with the package ``generated`` of the current folder,
which openapi-python-client made. It runs in a Python without torch and Stateroom. Arguments: URL, NAMESPACE, NAME,
FILE.
"""

import io
import json
import sys
from pathlib import Path

sys.path.insert(0, "")
from generated import Client
from generated.api.checkpoints import change_v1_models_namespace_name_checkpoints_ref_patch as change
from generated.api.checkpoints import index_v1_models_namespace_name_checkpoints_get as index
from generated.api.checkpoints import remove_v1_models_namespace_name_checkpoints_ref_delete as remove
from generated.api.checkpoints import show_v1_models_namespace_name_checkpoints_ref_get as show
from generated.api.checkpoints import upload_v1_models_namespace_name_checkpoints_put as upload
from generated.api.files import original_v1_models_namespace_name_checkpoints_ref_original_get as original
from generated.models import ChangeV1ModelsNamespaceNameCheckpointsRefPatchCheckpointChange as Change
from generated.types import File

url, namespace, name, path = sys.argv[1:]
data = Path(path).read_bytes()
with Client(base_url=url, raise_on_unexpected_status=True) as client:
    stored = upload.sync(namespace, name, client=client, body=File(io.BytesIO(data)), epoch="3", run="nightly")
    tagged = change.sync(namespace, name, "latest", client=client, body=Change.from_dict({"tags": {"a": "b"}}))
    listed = index.sync(namespace, name, client=client, epoch="3", limit=5)
    fetched = original.sync(namespace, name, "latest", client=client)
    removed = remove.sync_detailed(namespace, name, str(stored.version), client=client)
    gone = show.sync(namespace, name, str(stored.version), client=client)
print(
    json.dumps(
        {
            "epoch": stored.epoch,
            "components": [component.name for component in stored.components],
            "dated": stored.created_at.tzinfo is not None,
            "tags": tagged.tags.to_dict(),
            "listed": [item.version for item in listed.items],
            "same": fetched.payload.read() == data,
            "removed": removed.status_code,
            "gone": [gone.status, gone.code],
        }
    )
)
