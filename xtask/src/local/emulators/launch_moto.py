"""Starts moto's server for EC2, with a memory: moto itself forgets everything when it ends.

usage: launch_moto.py STATE HOST PORT

EC2's contents are read from the file STATE at the start and written to it at the end (SIGTERM), as they are: ids,
times and tags stay the same. moto can also record requests and replay them, but that makes new ids and new times.
"""

import os
import pickle
import sys

# The starter writes one line once it has recorded our process id. Without that record nobody could stop us later.
if not sys.stdin.readline():
    sys.exit("the program that started this one is gone")

import moto  # noqa: E402
from moto.ec2.models import ec2_backends  # noqa: E402
from moto.server import main  # noqa: E402

state, host, port = sys.argv[1:]


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
