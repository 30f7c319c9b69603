"""aiokafka as producer and consumer."""

import asyncio
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from records import SILENCE_SECONDS, arguments, canonical, records


async def produce(options):
    producer = AIOKafkaProducer(
        bootstrap_servers=options.bootstrap,
        compression_type=None if options.codec == "none" else options.codec,
        acks="all" if options.acks == "all" else int(options.acks),
        enable_idempotence=options.acks == "all",
        linger_ms=10,
        max_batch_size=65_536,
    )
    await producer.start()
    try:
        futures = []
        for record in records(options.input):
            future = await producer.send(
                options.topic,
                key=record.key,
                value=record.value,
                headers=record.headers,
                timestamp_ms=record.timestamp_ms,
                partition=options.partition,
            )
            futures.append(future)
        results = await asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), 60)
    finally:
        await producer.stop()
    failures = [result for result in results if isinstance(result, BaseException)]
    if failures:
        sys.exit(f"aiokafka: {len(failures)} records failed: {failures[:3]}")


async def consume(options):
    consumer = AIOKafkaConsumer(
        bootstrap_servers=options.bootstrap,
        group_id=None,
        enable_auto_commit=False,
        fetch_max_wait_ms=100,
    )
    await consumer.start()
    try:
        partition = TopicPartition(options.topic, options.partition)
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        end = (await consumer.end_offsets([partition]))[partition]
        with open(options.output, "wb") as output:
            while await consumer.position(partition) < end:
                batches = await consumer.getmany(
                    timeout_ms=SILENCE_SECONDS * 1000, max_records=10_000
                )
                if not batches:
                    sys.exit(f"aiokafka: nothing more before offset {end}")
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
    finally:
        await consumer.stop()


if __name__ == "__main__":
    chosen = arguments()
    asyncio.run(produce(chosen) if chosen.action == "produce" else consume(chosen))
