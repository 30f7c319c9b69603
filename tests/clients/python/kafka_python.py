"""kafka-python as producer and consumer. It cannot write a header whose value is null."""

import sys

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from records import SILENCE_SECONDS, arguments, canonical, records


def produce(options):
    producer = KafkaProducer(
        bootstrap_servers=options.bootstrap,
        compression_type=None if options.codec == "none" else options.codec,
        acks="all" if options.acks == "all" else int(options.acks),
        enable_idempotence=options.acks == "all",
        linger_ms=10,
        batch_size=65_536,
    )
    futures = [
        producer.send(
            options.topic,
            key=record.key,
            value=record.value,
            headers=record.headers,
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


if __name__ == "__main__":
    chosen = arguments()
    produce(chosen) if chosen.action == "produce" else consume(chosen)
