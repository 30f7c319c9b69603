"""The records every client writes and the text every client prints: see ../README.md.

Knows no Kafka client. Values are bytes throughout: the input need not be UTF-8.
"""

import argparse
import collections

TIMESTAMP_MS_BASE = 1_600_000_000_000
# A consumer that gets nothing for this long while records are missing has failed.
SILENCE_SECONDS = 30

Record = collections.namedtuple("Record", "key value headers timestamp_ms")


def arguments():
    """The one command line of all clients; see ../README.md."""
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=["produce", "consume", "join"])
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--partition", type=int, default=0)
    parser.add_argument("--codec", default="none", choices=["none", "gzip", "snappy", "lz4", "zstd"])
    parser.add_argument("--acks", default="all", choices=["all", "1", "0"])
    parser.add_argument("--input")
    parser.add_argument("--output")
    parser.add_argument("--group")
    parser.add_argument("--protocol", default="classic", choices=["classic", "consumer"])
    parser.add_argument("--assignor")
    parser.add_argument("--instance-id")
    parser.add_argument("--session-ms", type=int, default=30_000)
    parser.add_argument("--api-version")
    return parser.parse_args()


def records(path, null_header=True):
    """One record for each line of the file, numbered from 1."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            text = str(number).encode()
            headers = [("line", text), ("empty", b"")]
            if null_header:
                headers.append(("none", None))
            yield Record(
                key=None if number % 1000 == 500 else text,
                value=None if number % 1000 == 0 else line.removesuffix(b"\n"),
                headers=headers,
                timestamp_ms=TIMESTAMP_MS_BASE + number,
            )


def canonical(offset, timestamp_ms, key, headers, value):
    """One consumed record as one line of bytes."""
    shown = b",".join(
        name.encode() + b"=" + (b"NULL" if content is None else content)
        for name, content in headers or []
    )
    return b"%d\t%d\t%d\t%b\t%b\t%d\t%b\n" % (
        offset,
        -1 if timestamp_ms is None else timestamp_ms,
        -1 if key is None else len(key),
        key or b"",
        shown,
        -1 if value is None else len(value),
        value or b"",
    )
