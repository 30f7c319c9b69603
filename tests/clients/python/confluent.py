"""confluent-kafka (librdkafka) as producer, consumer and member of a group."""

import sys

from confluent_kafka import (
    OFFSET_BEGINNING,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaException,
    Producer,
    TopicPartition,
)

from membership import POLL_SECONDS, Membership
from records import SILENCE_SECONDS, arguments, canonical, records


def version_settings(options):
    """What makes the client take the broker for one that tells no versions of its APIs."""
    if not options.api_version:
        return {}
    # Both are deprecated, which the client says at length.
    return {
        "api.version.request": False,
        "broker.version.fallback": options.api_version,
        "log_level": 3,
    }


def produce(options):
    failures = []

    def delivered(error, _message):
        if error is not None:
            failures.append(error)

    producer = Producer(
        {
            "bootstrap.servers": options.bootstrap,
            "compression.codec": options.codec,
            "acks": options.acks,
            "enable.idempotence": options.acks == "all" and not options.api_version,
            "linger.ms": 10,
            "message.timeout.ms": 60_000,
            **version_settings(options),
        }
    )
    for record in records(options.input):
        while True:
            try:
                producer.produce(
                    options.topic,
                    key=record.key,
                    value=record.value,
                    headers=None if options.api_version else record.headers,
                    timestamp=record.timestamp_ms,
                    partition=options.partition,
                    on_delivery=delivered,
                )
                break
            except BufferError:  # the client's own queue is full
                producer.poll(1)
        producer.poll(0)
    left = producer.flush(60)
    if failures or left:
        sys.exit(f"confluent: {len(failures)} records failed, {left} unanswered: {failures[:3]}")


def consume(options):
    consumer = Consumer(
        {
            "bootstrap.servers": options.bootstrap,
            "group.id": "unused: the partition is assigned by hand",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 100,
            **version_settings(options),
        }
    )
    partition = TopicPartition(options.topic, options.partition, OFFSET_BEGINNING)
    consumer.assign([partition])
    first, end = consumer.get_watermark_offsets(partition, timeout=SILENCE_SECONDS)
    with open(options.output, "wb") as output:
        position = first
        while position < end:
            messages = consumer.consume(num_messages=10_000, timeout=1)
            if not messages:
                messages = consumer.consume(num_messages=1, timeout=SILENCE_SECONDS)
            if not messages:
                sys.exit(f"confluent: nothing more after offset {position} of {end}")
            for message in messages:
                if message.error():
                    sys.exit(f"confluent: {message.error()}")
                kind, timestamp_ms = message.timestamp()
                output.write(
                    canonical(
                        message.offset(),
                        None if kind == TIMESTAMP_NOT_AVAILABLE else timestamp_ms,
                        message.key(),
                        message.headers(),
                        message.value(),
                    )
                )
                position = message.offset() + 1
    consumer.close()


def join(options):
    settings = {
        "bootstrap.servers": options.bootstrap,
        "group.id": options.group,
        "group.protocol": options.protocol,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "fetch.wait.max.ms": 100,
        "reconnect.backoff.max.ms": 1_000,
        **version_settings(options),
    }
    if options.protocol == "classic":
        settings["session.timeout.ms"] = options.session_ms
        settings["heartbeat.interval.ms"] = 500
        settings["partition.assignment.strategy"] = options.assignor or "range"
    elif options.assignor:
        settings["group.remote.assignor"] = options.assignor
    if options.instance_id:
        settings["group.instance.id"] = options.instance_id
    consumer = Consumer(settings)
    member = Membership()

    def commit():
        if not member.uncommitted:
            return
        offsets = [
            TopicPartition(options.topic, partition, offset)
            for partition, offset in member.offsets().items()
        ]
        try:
            done = consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            member.refused(error)
            return
        errors = [partition.error for partition in done if partition.error]
        member.refused(errors) if errors else member.committed()

    def revoked(_consumer, partitions):
        commit()
        member.revoked([partition.partition for partition in partitions])

    consumer.subscribe(
        [options.topic],
        on_assign=lambda _, partitions: member.assigned([p.partition for p in partitions]),
        on_revoke=revoked,
        on_lost=lambda _, partitions: member.revoked([p.partition for p in partitions]),
    )
    while not member.leaving:
        for message in consumer.consume(num_messages=100, timeout=POLL_SECONDS):
            if message.error():
                print(f"confluent: {message.error()}", file=sys.stderr)
            else:
                member.read(message.partition(), message.offset())
        commit()
    consumer.close()


if __name__ == "__main__":
    chosen = arguments()
    {"produce": produce, "consume": consume, "join": join}[chosen.action](chosen)
