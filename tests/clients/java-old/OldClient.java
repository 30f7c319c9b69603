import java.io.BufferedOutputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Collection;
import java.util.Collections;
import java.util.HashMap;
import java.util.Map;
import java.util.TreeSet;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicReference;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Old versions of Apache Kafka's client, compiled against the oldest of them (it has no headers).
 *
 * <p>See ../README.md. Where it takes several topics, separated by commas, the codecs or the outputs
 * belong to them in order: a virtual machine takes a second to start.
 */
final class OldClient implements ConsumerRebalanceListener {
    private static final long TIMESTAMP_MS_BASE = 1_600_000_000_000L;

    /** A consumer that gets nothing for this long while records are missing has failed. */
    private static final long SILENCE_MS = 30_000;

    private final KafkaConsumer<byte[], byte[]> consumer;
    private final TreeSet<Integer> held = new TreeSet<>();
    private volatile boolean leaving;
    private volatile int status = 1;

    private OldClient(KafkaConsumer<byte[], byte[]> consumer) {
        this.consumer = consumer;
    }

    public static void main(String[] arguments) throws Exception {
        Map<String, String> options = new HashMap<>();
        options.put("--partition", "0");
        options.put("--codec", "none");
        options.put("--acks", "all");
        for (int i = 1; i + 1 < arguments.length; i += 2) {
            options.put(arguments[i], arguments[i + 1]);
        }
        String[] topics = options.get("--topic").split(",");
        for (int i = 0; i < topics.length; i++) {
            switch (arguments[0]) {
                case "produce":
                    produce(options, topics[i], options.get("--codec").split(",")[i]);
                    break;
                case "consume":
                    consume(options, topics[i], Path.of(options.get("--output").split(",")[i]));
                    break;
                default:
                    join(options, topics[i]);
            }
        }
    }

    private static void produce(Map<String, String> options, String topic, String codec)
            throws Exception {
        int partition = Integer.parseInt(options.get("--partition"));
        Map<String, Object> config = new HashMap<>();
        config.put("bootstrap.servers", options.get("--bootstrap"));
        config.put("compression.type", codec);
        config.put("acks", options.get("--acks"));
        config.put("linger.ms", 10);
        AtomicReference<Exception> failure = new AtomicReference<>();
        ByteArraySerializer raw = new ByteArraySerializer();
        byte[] input = Files.readAllBytes(Path.of(options.get("--input")));
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(config, raw, raw)) {
            long number = 1;
            for (int from = 0; from < input.length; number++) {
                int end = from;
                while (end < input.length && input[end] != '\n') {
                    end++;
                }
                byte[] line = Arrays.copyOfRange(input, from, end);
                byte[] key = ascii(Long.toString(number));
                producer.send(
                    new ProducerRecord<>(
                        topic,
                        partition,
                        TIMESTAMP_MS_BASE + number,
                        number % 1000 == 500 ? null : key,
                        number % 1000 == 0 ? null : line),
                    (metadata, error) -> {
                        if (error != null) {
                            failure.compareAndSet(null, error);
                        }
                    });
                from = end + 1;
            }
            producer.flush();
        }
        if (failure.get() != null) {
            throw failure.get();
        }
    }

    private static KafkaConsumer<byte[], byte[]> consumer(Map<String, String> options) {
        Map<String, Object> config = new HashMap<>();
        config.put("bootstrap.servers", options.get("--bootstrap"));
        config.put("group.id", options.getOrDefault("--group", "unused"));
        config.put("enable.auto.commit", false);
        config.put("auto.offset.reset", "earliest");
        config.put("fetch.max.wait.ms", 100);
        config.put("session.timeout.ms", Integer.parseInt(options.getOrDefault("--session-ms", "30000")));
        config.put("heartbeat.interval.ms", 500);
        ByteArrayDeserializer raw = new ByteArrayDeserializer();
        return new KafkaConsumer<>(config, raw, raw);
    }

    private static void consume(Map<String, String> options, String topic, Path path)
            throws IOException {
        TopicPartition partition =
            new TopicPartition(topic, Integer.parseInt(options.get("--partition")));
        try (OutputStream output = new BufferedOutputStream(Files.newOutputStream(path));
             KafkaConsumer<byte[], byte[]> consumer = consumer(options)) {
            consumer.assign(Collections.singletonList(partition));
            consumer.seekToEnd(Collections.singletonList(partition));
            long end = consumer.position(partition);
            consumer.seekToBeginning(Collections.singletonList(partition));
            while (consumer.position(partition) < end) {
                ConsumerRecords<byte[], byte[]> records = consumer.poll(SILENCE_MS);
                if (records.isEmpty()) {
                    throw new IOException("nothing more before offset " + end);
                }
                for (ConsumerRecord<byte[], byte[]> record : records) {
                    output.write(canonical(record));
                }
            }
        }
    }

    private static void join(Map<String, String> options, String topic) throws InterruptedException {
        OldClient member = new OldClient(consumer(options));
        CountDownLatch left = new CountDownLatch(1);
        // The machine waits for this thread after SIGTERM, and the thread for the member.
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            member.leaving = true;
            member.consumer.wakeup();
            try {
                left.await();
            } catch (InterruptedException end) {
                Thread.currentThread().interrupt();
            }
            Runtime.getRuntime().halt(member.status);
        }));
        try {
            member.run(topic);
            member.status = 0;
        } finally {
            left.countDown();
        }
    }

    private void run(String topic) {
        consumer.subscribe(Collections.singletonList(topic), this);
        try {
            while (!leaving) {
                Map<TopicPartition, OffsetAndMetadata> read = new HashMap<>();
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(500)) {
                    say("record " + record.partition() + " " + record.offset());
                    read.put(
                        new TopicPartition(record.topic(), record.partition()),
                        new OffsetAndMetadata(record.offset() + 1));
                }
                commit(read);
            }
        } catch (WakeupException told) {
            // To leave.
        }
        consumer.close();
    }

    private void commit(Map<TopicPartition, OffsetAndMetadata> read) {
        if (read.isEmpty()) {
            return;
        }
        try {
            consumer.commitSync(read);
            read.forEach((partition, offset) ->
                say("committed " + partition.partition() + " " + offset.offset()));
        } catch (WakeupException told) {
            throw told;
        } catch (KafkaException refusal) {
            say("refused " + refusal);
        }
    }

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> revoked) {
        revoked.forEach(partition -> held.remove(partition.partition()));
        tell();
    }

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> assigned) {
        assigned.forEach(partition -> held.add(partition.partition()));
        tell();
    }

    private void tell() {
        say("assigned " + held.stream().map(String::valueOf).collect(Collectors.joining(",")));
    }

    private static void say(String line) {
        System.out.println(line);
        System.out.flush();
    }

    /** One consumed record as one line of bytes, without headers. */
    private static byte[] canonical(ConsumerRecord<byte[], byte[]> record) throws IOException {
        ByteArrayOutputStream line = new ByteArrayOutputStream();
        line.write(ascii(record.offset() + "\t" + record.timestamp() + "\t"));
        writeSized(line, record.key());
        line.write('\t');
        line.write('\t');
        writeSized(line, record.value());
        line.write('\n');
        return line.toByteArray();
    }

    private static void writeSized(ByteArrayOutputStream line, byte[] content) throws IOException {
        line.write(ascii((content == null ? -1 : content.length) + "\t"));
        line.write(content == null ? new byte[0] : content);
    }

    private static byte[] ascii(String text) {
        return text.getBytes(StandardCharsets.US_ASCII);
    }
}
