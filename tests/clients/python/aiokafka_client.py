"""aiokafka as producer, consumer and member of a group."""

import asyncio
import sys

from aiokafka import (
    AIOKafkaConsumer,
    AIOKafkaProducer,
    ConsumerRebalanceListener,
    TopicPartition,
)
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import KafkaError

from membership import POLL_SECONDS, Membership
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


ASSIGNORS = {"range": RangePartitionAssignor, "roundrobin": RoundRobinPartitionAssignor}


class Listener(ConsumerRebalanceListener):
    """Commits before partitions go, and tells what came and went."""

    def __init__(self, member, commit):
        self.member = member
        self.commit = commit

    async def on_partitions_assigned(self, assigned):
        self.member.assigned([partition.partition for partition in assigned])

    async def on_partitions_revoked(self, revoked):
        await self.commit()
        self.member.revoked([partition.partition for partition in revoked])


async def join(options):
    consumer = AIOKafkaConsumer(
        bootstrap_servers=options.bootstrap,
        group_id=options.group,
        group_instance_id=options.instance_id,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=options.session_ms,
        heartbeat_interval_ms=500,
        fetch_max_wait_ms=100,
        partition_assignment_strategy=[ASSIGNORS[options.assignor or "range"]],
    )
    member = Membership()
    # The partitions may be taken away while a commit of the loop below is on its way.
    committing = asyncio.Lock()

    async def commit():
        async with committing:
            offsets = {
                TopicPartition(options.topic, partition): offset
                for partition, offset in member.offsets().items()
            }
            if not offsets:
                return
            try:
                await consumer.commit(offsets)
            except KafkaError as error:
                member.refused(repr(error))
            else:
                member.committed()

    consumer.subscribe([options.topic], listener=Listener(member, commit))
    await consumer.start()
    try:
        while not member.leaving:
            batches = await consumer.getmany(timeout_ms=int(POLL_SECONDS * 1000), max_records=100)
            for messages in batches.values():
                for message in messages:
                    member.read(message.partition, message.offset)
            await commit()
    finally:
        await consumer.stop()


if __name__ == "__main__":
    chosen = arguments()
    asyncio.run({"produce": produce, "consume": consume, "join": join}[chosen.action](chosen))
