import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Apache Kafka's own client as producer and consumer, and by Member in a group: see ../README.md. */
final class Client {
    private static final long TIMESTAMP_MS_BASE = 1_600_000_000_000L;

    /** A consumer that gets nothing for this long while records are missing has failed. */
    private static final Duration SILENCE = Duration.ofSeconds(30);

    private Client() {}

    public static void main(String[] arguments) throws Exception {
        Map<String, String> options = new HashMap<>(
            Map.of("--partition", "0", "--codec", "none", "--acks", "all"));
        for (int i = 1; i + 1 < arguments.length; i += 2) {
            options.put(arguments[i], arguments[i + 1]);
        }
        switch (arguments.length == 0 ? "" : arguments[0]) {
            case "produce" -> produce(options);
            case "consume" -> consume(options);
            case "join" -> Member.join(options);
            default -> {
                System.err.println("usage: java Client produce|consume|join --bootstrap HOST:PORT …");
                System.exit(2);
            }
        }
    }

    private static void produce(Map<String, String> options) throws Exception {
        String topic = options.get("--topic");
        int partition = Integer.parseInt(options.get("--partition"));
        Map<String, Object> config = Map.of(
            ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, options.get("--bootstrap"),
            ProducerConfig.COMPRESSION_TYPE_CONFIG, options.get("--codec"),
            ProducerConfig.ACKS_CONFIG, options.get("--acks"),
            ProducerConfig.ENABLE_IDEMPOTENCE_CONFIG, options.get("--acks").equals("all"),
            ProducerConfig.LINGER_MS_CONFIG, 10);
        AtomicReference<Exception> failure = new AtomicReference<>();
        ByteArraySerializer raw = new ByteArraySerializer();
        try (InputStream input = new BufferedInputStream(Files.newInputStream(Path.of(options.get("--input"))));
             KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(config, raw, raw)) {
            byte[] line;
            for (long number = 1; (line = readLine(input)) != null; number++) {
                byte[] text = Long.toString(number).getBytes(StandardCharsets.US_ASCII);
                List<Header> headers = List.of(
                    new RecordHeader("line", text),
                    new RecordHeader("empty", new byte[0]),
                    new RecordHeader("none", (byte[]) null));
                producer.send(
                    new ProducerRecord<>(
                        topic,
                        partition,
                        TIMESTAMP_MS_BASE + number,
                        number % 1000 == 500 ? null : text,
                        number % 1000 == 0 ? null : line,
                        headers),
                    (metadata, error) -> {
                        if (error != null) {
                            failure.compareAndSet(null, error);
                        }
                    });
            }
            producer.flush();
        }
        if (failure.get() != null) {
            throw failure.get();
        }
    }

    private static void consume(Map<String, String> options) throws IOException {
        TopicPartition partition =
            new TopicPartition(options.get("--topic"), Integer.parseInt(options.get("--partition")));
        Map<String, Object> config = Map.of(
            ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, options.get("--bootstrap"),
            ConsumerConfig.MAX_POLL_RECORDS_CONFIG, 10_000,
            ConsumerConfig.FETCH_MAX_WAIT_MS_CONFIG, 100);
        ByteArrayDeserializer raw = new ByteArrayDeserializer();
        try (OutputStream output = new BufferedOutputStream(Files.newOutputStream(Path.of(options.get("--output"))));
             KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(config, raw, raw)) {
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            long end = consumer.endOffsets(List.of(partition)).get(partition);
            while (consumer.position(partition) < end) {
                ConsumerRecords<byte[], byte[]> records = consumer.poll(SILENCE);
                if (records.isEmpty()) {
                    throw new IOException("nothing more before offset " + end);
                }
                for (ConsumerRecord<byte[], byte[]> record : records) {
                    output.write(canonical(record));
                }
            }
        }
    }

    /** One consumed record as one line of bytes. */
    private static byte[] canonical(ConsumerRecord<byte[], byte[]> record) {
        ByteArrayOutputStream line = new ByteArrayOutputStream();
        line.writeBytes(ascii(record.offset() + "\t" + record.timestamp() + "\t"));
        writeSized(line, record.key());
        line.write('\t');
        String separator = "";
        for (Header header : record.headers()) {
            line.writeBytes(ascii(separator + header.key() + "="));
            line.writeBytes(header.value() == null ? ascii("NULL") : header.value());
            separator = ",";
        }
        line.write('\t');
        writeSized(line, record.value());
        line.write('\n');
        return line.toByteArray();
    }

    private static void writeSized(ByteArrayOutputStream line, byte[] content) {
        line.writeBytes(ascii((content == null ? -1 : content.length) + "\t"));
        line.writeBytes(content == null ? new byte[0] : content);
    }

    private static byte[] ascii(String text) {
        return text.getBytes(StandardCharsets.US_ASCII);
    }

    /** The bytes up to the next newline or the end, or null when nothing is left. */
    private static byte[] readLine(InputStream input) throws IOException {
        ByteArrayOutputStream line = new ByteArrayOutputStream();
        int next = input.read();
        if (next < 0) {
            return null;
        }
        for (; next >= 0 && next != '\n'; next = input.read()) {
            line.write(next);
        }
        return line.toByteArray();
    }
}
