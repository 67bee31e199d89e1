"""The first process of a PID namespace: runs a program, and makes strangers for it that have a given pid.

A stranger blocks every signal, so the kernel shows in /proc/PID/status whatever was sent to it. Strangers come from here
so that nobody can take them for descendants of the program.

The program's standard input is the way to ask: `make PID KIND` is answered by the pids of those who live now, or by
`taken`; `end` kills them all, and is answered by `ended`.
"""

import os
import signal
import socket
import subprocess
import sys

LAST_PID = os.open("/proc/sys/kernel/ns_last_pid", os.O_WRONLY)


def live():
    while True:
        signal.pause()


def fork():
    child = os.fork()
    if child == 0:
        live()
    return child


def be(kind, say):
    """What a stranger does: it tells who lives, and then lives, or leaves its children behind."""
    if kind == "plain":
        family = [os.getpid()]
    else:
        os.setsid()
        family = [os.getpid(), fork(), fork()]
    if kind == "orphans":
        family = family[1:]
    os.write(say, " ".join(map(str, family)).encode())
    if kind == "orphans":
        os._exit(0)
    live()


def make(pid, kind):
    hear, say = os.pipe()
    os.pwrite(LAST_PID, str(pid - 1).encode(), 0)
    child = os.fork()
    if child == 0:
        if os.getpid() != pid:
            os._exit(0)
        be(kind, say)
    os.close(say)
    family = [int(word) for word in os.read(hear, 1000).split()]
    os.close(hear)
    if child not in family:
        os.waitpid(child, 0)
    return family


def end(family):
    for pid in family:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def serve(stream):
    family = []
    for line in stream:
        word, *rest = line.split()
        if word == "make":
            family = make(int(rest[0]), rest[1])
            answer = " ".join(map(str, family)) or "taken"
        else:
            end(family)
            family = []
            answer = "ended"
        stream.write(answer + "\n")
        stream.flush()


ours, its = socket.socketpair()
program = subprocess.Popen(sys.argv[1:], stdin=its)
its.close()
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
serve(ours.makefile("rw"))
sys.exit(program.wait())
