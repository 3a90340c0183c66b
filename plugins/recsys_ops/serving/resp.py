"""Redis' protocol (RESP), written by Arrow: one command a bucket, without a loop over lists."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import redis

from recsys_ops.serving.layout import EncodedVersion


def hset_commands(
    content: EncodedVersion, buckets: range, key: Callable[[int], str]
) -> Iterator[bytes]:
    """For each bucket an UNLINK of its key and an HSET of all its fields: two replies a bucket."""
    common = b"".join(_bulk(part) for pair in content.common.items() for part in pair)
    for bucket, lists, arguments in _slices(content, buckets, [content.fields, content.values]):
        name = _bulk(key(bucket).encode())
        words = 2 + 2 * (len(content.common) + lists)
        yield b"".join(
            [
                b"*2\r\n$6\r\nUNLINK\r\n",
                name,
                b"*%d\r\n$4\r\nHSET\r\n" % words,
                name,
                common,
                arguments,
            ]
        )


def hmget_commands(
    content: EncodedVersion, buckets: range, key: Callable[[int], str]
) -> Iterator[bytes]:
    """For each bucket an HLEN and an HMGET of all its fields, `common` first: two replies."""
    common = b"".join(map(_bulk, content.common))
    for bucket, lists, arguments in _slices(content, buckets, [content.fields]):
        name = _bulk(key(bucket).encode())
        words = 2 + len(content.common) + lists
        yield b"".join(
            [
                b"*2\r\n$4\r\nHLEN\r\n",
                name,
                b"*%d\r\n$5\r\nHMGET\r\n" % words,
                name,
                common,
                arguments,
            ]
        )


def send_commands(client: redis.Redis, commands: Sequence[bytes], replies: int) -> list[Any]:
    """Send commands in one request and return their replies.

    commands : they are sent again after a lost connection, so repeating them must be harmless
    replies : the number of replies to all of them

    Raises RedisError; the first refusal of a command is raised after all replies are read.
    """
    if not commands:
        return []
    connection: Any = client.connection_pool.get_connection()

    def send() -> list[Any]:
        connection.send_packed_command([b"".join(commands)])
        answers, refusal = [], None
        for _ in range(replies):
            try:
                answers.append(connection.read_response())
            except redis.ResponseError as error:
                refusal = refusal or error
        if refusal:
            raise refusal
        return answers

    try:
        return list(connection.retry.call_with_retry(send, lambda _: connection.disconnect()))
    except BaseException:
        # unread replies would be taken for those of the next command
        connection.disconnect()
        raise
    finally:
        client.connection_pool.release(connection)


def _slices(
    content: EncodedVersion, buckets: range, columns: Sequence[pa.LargeBinaryArray]
) -> Iterator[tuple[int, int, memoryview]]:
    """For each bucket: its number, its number of lists, and the columns' values as bulk strings."""
    first, last = content.starts[buckets.start], content.starts[buckets.stop]
    parts = [part for column in columns for part in _bulks(column.slice(first, last - first))]
    joined = pc.binary_join_element_wise(*parts, _scalar(b""))
    offsets = np.frombuffer(joined.buffers()[1], np.int64)[joined.offset :]
    data = memoryview(joined.buffers()[2] or b"")
    for bucket in buckets:
        start, stop = content.starts[bucket] - first, content.starts[bucket + 1] - first
        yield bucket, stop - start, data[offsets[start] : offsets[stop]]


def _bulks(column: pa.LargeBinaryArray) -> list[Any]:
    length = pc.binary_length(column).cast(pa.large_string()).cast(pa.large_binary())
    return [_scalar(b"$"), length, _scalar(b"\r\n"), column, _scalar(b"\r\n")]


def _scalar(value: bytes) -> pa.Scalar:
    return pa.scalar(value, pa.large_binary())


def _bulk(value: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(value), value)
