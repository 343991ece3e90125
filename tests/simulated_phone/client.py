import json
import os
import socket
import sys
import time

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
                # From the process's start, which Linux tells in hundredths of a second, rounded down.
                with open("/proc/self/stat") as stat:  # noqa: PTH123
                    began = int(stat.read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
                took = time.clock_gettime(time.CLOCK_BOOTTIME) - began - 0.005
                # What of it was the warm-up that it was asked for.
                warmups = [float(word.partition("=")[2]) for word in sys.argv if "--warmup_min_secs=" in word]
                notes.write(f"{took} {sum(warmups)}\n")
            sys.exit(int(status))
sys.exit(1)
