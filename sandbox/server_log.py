"""What a sandbox's server may write to its log: that something went wrong, when and where, and nothing of any row.

PostgreSQL's messages quote values (``invalid input syntax for type integer: "..."``), and what a function raises may be
any text; there is no setting that leaves them out and keeps the rest. So all that the server says goes through this
filter before it gets to a disk. Of a session's lines it keeps time, process, SQLSTATE, role, database and level, and
drops the message. Of the server's own processes it keeps what ends them, and messages of a few kinds, which tell of
crashes, disks and starts; the others' are dropped too, for parallel workers speak like them, and say what sessions say.

Where there is no such filter (other systems than Linux), the server logs nothing below FATAL.
"""

from __future__ import annotations

import sys

IS_FILTERED = sys.platform == "linux"
"""Whether a server on this host gets the filter."""

SETTINGS = {"log_min_messages": "error", "log_line_prefix": "%m,%p,%e,%q%u,%d,"}
"""Settings of a server whose log is filtered. The prefix needs no quotes in a shell."""

_STAMP = r"[0-9-]{10} [0-9:.]{12} UTC,[0-9]+,[0-9A-Z]{5},"
_WHO = r"[]a-z0-9_[]*,[]a-z0-9_[]*,"
_LEVEL = r"[A-Z]+[0-9]?:  "
_KEPT = "|".join(
    (
        "background worker ",
        "database system ",
        "starting PostgreSQL ",
        "listening on ",
        "received .* shutdown request",
        "shutting down",
        "aborting any active transactions",
        "all server processes terminated",
        "terminating any other active server processes",
        "server process .* (exited|was terminated)",
        "[a-z ]+ process .* (exited|was terminated)",
        "redo ",
        "invalid record length",
        "checkpoint ",
        "out of memory",
        "could not ",
    )
)

FILTER = f"""
/^{_STAMP}((FATAL|PANIC):  |LOG:  ({_KEPT}))/ {{
p
d
}}
s/^({_STAMP}({_WHO})?{_LEVEL}).*/\\1***/p
1,9 {{
/^([^ ]*postgres: |FATAL:  |LOG:  )/p
}}
"""
"""A script for ``sed -E -n -u``. Lines without a prefix are kept at the start only, when the server reads its settings
and there is no session; later they are parts of messages, or end in another's line."""

START = """
umask 077
filter=$1 pipe=$2 log=$3
shift 3
command -v sed > /dev/null || exit
rm -f "$pipe"
mkfifo "$pipe" || exit
(sed -E -n -u "$filter" < "$pipe" >> "$log" 2> /dev/null &)
exec 3> "$pipe"
"$@" 3>&-
code=$?
rm -f "$pipe"
exit $code
"""
"""A script for ``sh -c``: begins to filter a pipe into a log, and runs a program that lets a server write to the pipe.

The filter ends with the server, whoever else has ended. While the pipe is held open here neither waits for the other
in vain."""

CONTAINER = """
rm -f "$3/postmaster.pid"
mkfifo -m 600 /tmp/log || exit
sed -E -n -u "$0" < /tmp/log 2> /dev/null &
"$@" > /tmp/log 2>&1 &
server=$!
trap 'kill -INT "$server"' INT
code=0
wait "$server" || code=$?
while kill -0 "$server" 2> /dev/null; do code=0; wait "$server" || code=$?; done
if [ "$code" = 130 ]; then code=0; wait "$server" || code=$?; fi
wait
exit "$code"
"""
"""A script for ``bash -c`` in a container: runs a server and filters what it says into the container's log, to the end.

It is called with the server's program, ``-D`` and its data, to which a killed server may still lay claim by the number
of a process that is another one here; whoever starts this has removed all other containers.

Passes SIGINT on, and exits as the server does. A ``wait`` that a signal has ended (130) says nothing of the server."""
