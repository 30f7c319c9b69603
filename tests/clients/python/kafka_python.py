"""kafka-python as producer, consumer and member of a group.

It cannot write a header whose value is null.
"""

import sys

from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from membership import POLL_SECONDS, Membership
from records import SILENCE_SECONDS, arguments, canonical, records


def broker_version(options):
    """What the broker is taken for, when that is said."""
    return tuple(map(int, options.api_version.split("."))) if options.api_version else None


def version_settings(options):
    version = broker_version(options)
    return {"api_version": version} if version else {}


def produce(options):
    # Such brokers know neither headers nor idempotence, nor times before 0.10.
    old = options.api_version is not None and broker_version(options) < (0, 11)
    producer = KafkaProducer(
        bootstrap_servers=options.bootstrap,
        compression_type=None if options.codec == "none" else options.codec,
        acks="all" if options.acks == "all" else int(options.acks),
        enable_idempotence=options.acks == "all" and not old,
        linger_ms=10,
        batch_size=65_536,
        **version_settings(options),
    )
    futures = [
        producer.send(
            options.topic,
            key=record.key,
            value=record.value,
            headers=None if old else record.headers,
            timestamp_ms=record.timestamp_ms,
            partition=options.partition,
        )
        for record in records(options.input, null_header=False)
    ]
    producer.flush(timeout=60)
    failures = [future.exception for future in futures if not future.succeeded()]
    producer.close()
    if failures:
        sys.exit(f"kafka-python: {len(failures)} records failed: {failures[:3]}")


def consume(options):
    consumer = KafkaConsumer(
        bootstrap_servers=options.bootstrap,
        group_id=None,
        enable_auto_commit=False,
        fetch_max_wait_ms=100,
        **version_settings(options),
    )
    partition = TopicPartition(options.topic, options.partition)
    consumer.assign([partition])
    consumer.seek_to_beginning(partition)
    end = consumer.end_offsets([partition])[partition]
    with open(options.output, "wb") as output:
        while consumer.position(partition) < end:
            batches = consumer.poll(timeout_ms=SILENCE_SECONDS * 1000, max_records=10_000)
            if not batches:
                sys.exit(f"kafka-python: nothing more before offset {end}")
            for message in batches[partition]:
                output.write(
                    canonical(
                        message.offset,
                        message.timestamp,
                        message.key,
                        message.headers,
                        message.value,
                    )
                )
    consumer.close()


ASSIGNORS = {
    "range": RangePartitionAssignor,
    "roundrobin": RoundRobinPartitionAssignor,
    "cooperative-sticky": CooperativeStickyAssignor,
}


class Listener(ConsumerRebalanceListener):
    """Commits before partitions go, and tells what came and went."""

    def __init__(self, member, commit):
        self.member = member
        self.commit = commit

    def on_partitions_assigned(self, assigned):
        self.member.assigned([partition.partition for partition in assigned])

    def on_partitions_revoked(self, revoked):
        self.commit()
        self.member.revoked([partition.partition for partition in revoked])

    def on_partitions_lost(self, lost):
        self.member.revoked([partition.partition for partition in lost])


def join(options):
    settings = version_settings(options)
    if options.instance_id:
        settings["group_instance_id"] = options.instance_id
    consumer = KafkaConsumer(
        bootstrap_servers=options.bootstrap,
        group_id=options.group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=options.session_ms,
        heartbeat_interval_ms=500,
        fetch_max_wait_ms=100,
        partition_assignment_strategy=[ASSIGNORS[options.assignor or "range"]],
        **settings,
    )
    member = Membership()

    def commit():
        if not member.uncommitted:
            return
        offsets = {
            TopicPartition(options.topic, partition): OffsetAndMetadata(offset, "", -1)
            for partition, offset in member.offsets().items()
        }
        try:
            consumer.commit(offsets)
        except KafkaError as error:
            member.refused(repr(error))
        else:
            member.committed()

    consumer.subscribe([options.topic], listener=Listener(member, commit))
    while not member.leaving:
        batches = consumer.poll(timeout_ms=int(POLL_SECONDS * 1000), max_records=100)
        for messages in batches.values():
            for message in messages:
                member.read(message.partition, message.offset)
        commit()
    consumer.close(autocommit=False)


if __name__ == "__main__":
    chosen = arguments()
    {"produce": produce, "consume": consume, "join": join}[chosen.action](chosen)
