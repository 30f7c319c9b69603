"""What librdkafka's own test 0011-produce_batch wants of a broker, with the librdkafka that
confluent-kafka brings along: records in order, records to the partitions that were named, and of a
batch in which some records are refused, which ones.

    produce_batch.py installed
    produce_batch.py check --bootstrap HOST:PORT --topic PREFIX

Prints a line for each part; ends with exit code 1 where the broker is not what librdkafka expects.
"""

import argparse
import sys
import time

from confluent_kafka import KafkaError, Producer, libversion
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

# The version whose test this is, pinned in requirements.txt.
LIBRDKAFKA = "2.11.1"
PARTITIONS = 4
SECONDS = 60


class Deliveries:
    """Delivery reports in the order in which they came."""

    def __init__(self):
        self.reports = []

    def of(self, number):
        return lambda error, message: self.reports.append((number, error, message))

    def counted(self):
        """How many records ended in which way."""
        counts = {}
        for _, error, _ in self.reports:
            name = "none" if error is None else error.name()
            counts[name] = counts.get(name, 0) + 1
        return counts


def send(bootstrap, topic, count, settings=None, **record):
    """Sends `count` records, whose fields are given or functions of their numbers."""
    deliveries = Deliveries()
    # All of them are queued before the first is sent.
    defaults = {"bootstrap.servers": bootstrap, "linger.ms": 500}
    producer = Producer({**defaults, **(settings or {})})
    for number in range(count):
        fields = {name: field(number) for name, field in record.items()}
        producer.produce(topic, f"test message #{number}", on_delivery=deliveries.of(number), **fields)
    left = producer.flush(SECONDS)
    expect("records without a report", left, 0)
    return deliveries


def expect(what, found, wanted):
    if found != wanted:
        sys.exit(f"{what}: {found}, not {wanted}")


def create(admin, topic):
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(SECONDS)


def in_order(bootstrap, topic):
    deliveries = send(bootstrap, topic, 100, partition=lambda _: 0)
    expect("ways to end", deliveries.counted(), {"none": 100})
    expect("order", [number for number, _, _ in deliveries.reports], list(range(100)))


def partitioned(bootstrap, topic):
    deliveries = send(bootstrap, topic, 100, {"sticky.partitioning.linger.ms": 0})
    expect("ways to end", deliveries.counted(), {"none": 100})
    used = {message.partition() for _, _, message in deliveries.reports}
    if len(used) < 2:
        sys.exit(f"the partitioner used only {used}")


def by_partition(bootstrap, topic):
    deliveries = send(bootstrap, topic, 100, partition=lambda number: number * 7 % PARTITIONS)
    expect("ways to end", deliveries.counted(), {"none": 100})
    for number, _, message in deliveries.reports:
        expect(f"partition of {number}", message.partition(), number * 7 % PARTITIONS)


def compacted(admin, topic, operation):
    entry = ConfigEntry("cleanup.policy", "compact", incremental_operation=operation)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(SECONDS)
    # Kafka's broker follows its controller; the original waits as long.
    time.sleep(1)


def refused(bootstrap, topic, settings, others):
    record = {"partition": lambda _: 0, "key": lambda n: None if n % 10 == 0 else f"key {n}"}
    deliveries = send(bootstrap, topic, 100, settings, **record)
    expect("ways to end", deliveries.counted(), {"INVALID_RECORD": 10, **others})
    invalid = [n for n, error, _ in deliveries.reports if error and error.code() == KafkaError.INVALID_RECORD]
    expect("refused records", sorted(invalid), list(range(0, 100, 10)))


def check(bootstrap, prefix):
    expect("librdkafka", libversion()[0], LIBRDKAFKA)
    admin = AdminClient({"bootstrap.servers": bootstrap})
    topic = f"{prefix}-ordered"
    create(admin, topic)
    in_order(bootstrap, topic)
    print("in order")
    partitioned(bootstrap, topic)
    print("partitioned")
    by_partition(bootstrap, topic)
    print("by partition")
    topic = f"{prefix}-refused"
    create(admin, topic)
    compacted(admin, topic, AlterConfigOpType.APPEND)
    refused(bootstrap, topic, {}, {"_INVALID_DIFFERENT_RECORD": 90})
    print("refused among others")
    refused(bootstrap, topic, {"batch.size": 1}, {"none": 90})
    print("refused alone")
    compacted(admin, topic, AlterConfigOpType.SUBTRACT)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=["installed", "check"])
    parser.add_argument("--bootstrap")
    parser.add_argument("--topic")
    options = parser.parse_args()
    if options.action == "check":
        check(options.bootstrap, options.topic)


main()
