import json
import os
import socket
import sys
import time

began = time.monotonic()
# Hands its arguments, folder and cores to the server, prints what comes back, and ends as the run did.
asked = {"arguments": sys.argv[1:], "folder": os.getcwd(), "cores": sorted(os.sched_getaffinity(0))}  # noqa: PTH109
with socket.socket(socket.AF_UNIX) as connected:
    os.chdir(FOLDER)  # noqa: F821 -- the line above this file, where it is installed
    connected.connect("runner")
    connected.sendall(json.dumps(asked).encode() + b"\n")
    while part := connected.recv(65536):
        text, end, status = part.partition(b"\0")
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
        if end:
            with open("runs", "a") as notes:  # noqa: PTH123
                notes.write(f"{time.monotonic() - began}\n")
            sys.exit(int(status))
sys.exit(1)
