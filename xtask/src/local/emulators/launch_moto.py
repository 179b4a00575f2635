"""Starts moto's server for EC2, with a memory: moto itself forgets everything when it ends. STS answers beside it, whose
credentials of a role in another account moto takes for that account's.

usage: launch_moto.py STATE HOST PORT

EC2's contents are read from the file STATE at the start and written to it at the end (SIGTERM), as they are: ids,
times and tags stay the same. moto can also record requests and replay them, but that makes new ids and new times.

Of moto itself two things are changed: a snapshot can be copied by an account that it is shared with, and can be listed by
whom it is shared with. moto remembers who may read a snapshot, and does nothing with it.
"""

import os
import pickle
import sys

# The starter writes one line once it has recorded our process id. Without that record nobody could stop us later.
if not sys.stdin.readline():
    sys.exit("the program that started this one is gone")

import moto  # noqa: E402
import moto.iam.models  # noqa: E402
from moto.ec2.models import ec2_backends  # noqa: E402
from moto.ec2.models.elastic_block_store import EBSBackend, Snapshot  # noqa: E402
from moto.ec2.responses.elastic_block_store import ElasticBlockStore  # noqa: E402
from moto.ec2.utils import random_snapshot_id  # noqa: E402
from moto.server import main  # noqa: E402

state, host, port = sys.argv[1:]
# As a variable it would be everybody's account; this way it is that of credentials that moto does not know.
moto.iam.models.DEFAULT_ACCOUNT_ID = os.environ.pop("MOTO_ACCOUNT_ID")


def restore():
    if not os.path.exists(state):
        return
    with open(state, "rb") as file:
        version = pickle.load(file)
        # Pickled objects only fit the code that wrote them.
        if version != moto.__version__:
            sys.exit(f"{state} was written by moto {version}, this is moto {moto.__version__}: "
                     "run `cargo xtask local reset` to start empty")
        for (account, region), backend in pickle.load(file).items():
            ec2_backends[account][region] = backend


def save():
    contents = {(account, region): backend for account, region, backend in ec2_backends.iter_backends()}
    with open(state + ".new", "wb") as file:
        pickle.dump(moto.__version__, file)
        pickle.dump(contents, file)
    os.replace(state + ".new", state)


def copying_what_is_shared(copy):
    def copy_snapshot(self, source_snapshot_id, source_region, description, kms_key_id):
        for account, region, backend in ec2_backends.iter_backends():
            theirs = backend.snapshots.get(source_snapshot_id)
            if theirs is None or region != source_region or account == self.account_id:
                continue
            if self.account_id in theirs.create_volume_permission_userids:
                ours = Snapshot(self, random_snapshot_id(), theirs.volume, description, theirs.encrypted, kms_key_id)
                self.snapshots[ours.id] = ours
                return ours
        return copy(self, source_snapshot_id, source_region, description, kms_key_id)

    return copy_snapshot


def listing_what_is_shared(describe):
    def describe_snapshots(self):
        answer = describe(self)
        readers = set(self._get_param("RestorableByUserIds", []))
        if readers:
            found = answer.result["Snapshots"]
            found[:] = [one for one in found if readers & one.create_volume_permission_userids]
        return answer

    return describe_snapshots


EBSBackend.copy_snapshot = copying_what_is_shared(EBSBackend.copy_snapshot)
ElasticBlockStore.describe_snapshots = listing_what_is_shared(ElasticBlockStore.describe_snapshots)

restore()
try:
    main(["-H", host, "-p", port])
finally:
    # A request that is still being answered may change what is being written: then once more.
    for attempt in range(5):
        try:
            save()
            break
        except RuntimeError:
            if attempt == 4:
                raise
