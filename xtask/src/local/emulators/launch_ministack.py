"""Starts ministack so that its functions run on this machine, and end with it.

usage: launch_ministack.py [QEMU]

ministack runs a Lambda function by executing the `bootstrap` in its zip. Ours are built for arm64, so on another
processor QEMU goes in front of them. Of ministack itself two things are changed. Its CloudFormation leaves `RecursiveLoop`
out, which AWS's hands on to Lambda, and without which no deploy of a stack would be seen to have done what was planned. And
its schedules do not fire: it does not fill in what they tell the functions, such as the time that they fire for, so that
every run of theirs would fail.
"""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import weakref

# The starter writes one line once it has recorded our process id. Without that record nobody could stop us later.
if not sys.stdin.readline():
    sys.exit("the program that started this one is gone")

qemu = sys.argv[1:]
functions = weakref.WeakSet()
stopping = False
# Functions are started by threads, and ended by the loop's.
lock = threading.Lock()


class FunctionAwarePopen(subprocess.Popen):
    def __init__(self, args, *rest, **options):
        is_function = isinstance(args, list) and args and os.path.basename(args[0]) == "bootstrap"
        super().__init__(qemu + args if is_function else args, *rest, **options)
        if is_function:
            with lock:
                functions.add(self)
                if stopping:
                    self.kill()


subprocess.Popen = FunctionAwarePopen

import hypercorn.asyncio  # noqa: E402
from ministack.app import main  # noqa: E402

from ministack.services import lambda_svc, scheduler  # noqa: E402
from ministack.services.cloudformation.provisioners import _RESOURCE_HANDLERS  # noqa: E402


def handing_on_recursive_loop(handler, properties_at):
    def handle(*arguments, **named):
        answer = handler(*arguments, **named)
        properties = arguments[properties_at]
        function = lambda_svc._functions.get(properties.get("FunctionName"))
        if function is not None:
            function["recursive_loop"] = properties.get("RecursiveLoop", "Terminate")
        return answer

    return handle


of_functions = _RESOURCE_HANDLERS["AWS::Lambda::Function"]
of_functions["create"] = handing_on_recursive_loop(of_functions["create"], 1)
of_functions["update"] = handing_on_recursive_loop(of_functions["update"], 2)

scheduler.start_scheduler = lambda: None

serve = hypercorn.asyncio.serve


async def serve_until_terminated(app, config):
    terminated = asyncio.Event()

    def end():
        global stopping
        terminated.set()
        # ministack only saves what it holds once no request is open, and an invocation may be open for 15 minutes.
        with lock:
            stopping = True
            for function in functions:
                function.kill()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end)
    await serve(app, config, shutdown_trigger=terminated.wait)


hypercorn.asyncio.serve = serve_until_terminated
sys.argv = ["ministack"]
main()
