"""A confluent-kafka producer that writes counters with acks=all and idempotence until its standard
input ends, and prints "partition offset counter" for each record the broker acknowledged.

Arguments: bootstrap, topic, number of partitions. Ends with an error when any record was given up.
"""

import sys
import threading

from confluent_kafka import Producer

bootstrap, topic, partitions = sys.argv[1], sys.argv[2], int(sys.argv[3])
producer = Producer(
    {
        "bootstrap.servers": bootstrap,
        "enable.idempotence": True,
        "acks": "all",
        "linger.ms": 1,
        "reconnect.backoff.ms": 5,
        "reconnect.backoff.max.ms": 50,
        "retry.backoff.ms": 10,
        "retry.backoff.max.ms": 50,
        "message.timeout.ms": 120000,
        "batch.num.messages": 50,
    }
)
failed = []
over = threading.Event()


def watch_input():
    sys.stdin.read()
    over.set()


def delivered(error, message):
    if error is not None:
        failed.append(f"{message.value().decode()}: {error}")
    else:
        print(message.partition(), message.offset(), message.value().decode())


threading.Thread(target=watch_input, daemon=True).start()
counter = 0
while not over.is_set():
    try:
        producer.produce(
            topic, str(counter).encode(), partition=counter % partitions, on_delivery=delivered
        )
        counter += 1
    except BufferError:
        pass
    # Waits for events while much is under way, so that the queue stays short.
    producer.poll(0.01 if len(producer) > 500 else 0)
left = producer.flush(60)
sys.stdout.flush()
if failed or left:
    sys.exit(f"{len(failed)} records failed, {left} left; first: {failed[:1]}")
