"""confluent-kafka (librdkafka) as producer and consumer."""

import sys

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from records import SILENCE_SECONDS, arguments, canonical, records


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
            "enable.idempotence": options.acks == "all",
            "linger.ms": 10,
            "message.timeout.ms": 60_000,
        }
    )
    for record in records(options.input):
        while True:
            try:
                producer.produce(
                    options.topic,
                    key=record.key,
                    value=record.value,
                    headers=record.headers,
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
                _kind, timestamp_ms = message.timestamp()
                output.write(
                    canonical(
                        message.offset(),
                        timestamp_ms,
                        message.key(),
                        message.headers(),
                        message.value(),
                    )
                )
                position = message.offset() + 1
    consumer.close()


if __name__ == "__main__":
    chosen = arguments()
    produce(chosen) if chosen.action == "produce" else consume(chosen)
