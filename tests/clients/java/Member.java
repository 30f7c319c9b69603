import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.concurrent.CountDownLatch;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.consumer.RoundRobinAssignor;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** Apache Kafka's own client as a member of a group, until it is told to leave: see ../README.md. */
final class Member implements ConsumerRebalanceListener {
    private static final Map<String, Class<?>> ASSIGNORS = Map.of(
        "range", RangeAssignor.class,
        "roundrobin", RoundRobinAssignor.class,
        "cooperative-sticky", CooperativeStickyAssignor.class);

    private static final Duration POLL = Duration.ofMillis(500);

    private final KafkaConsumer<byte[], byte[]> consumer;
    private final TreeSet<Integer> held = new TreeSet<>();
    private final Map<TopicPartition, OffsetAndMetadata> uncommitted = new HashMap<>();
    private volatile boolean leaving;
    private volatile int status = 1;

    private Member(KafkaConsumer<byte[], byte[]> consumer) {
        this.consumer = consumer;
    }

    static void join(Map<String, String> options) throws InterruptedException {
        ByteArrayDeserializer raw = new ByteArrayDeserializer();
        Member member = new Member(new KafkaConsumer<>(settings(options), raw, raw));
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
            // Who leaves when told to has not failed, whatever signal told it.
            Runtime.getRuntime().halt(member.status);
        }));
        try {
            member.run(options.get("--topic"));
            member.status = 0;
        } catch (RuntimeException failure) {
            failure.printStackTrace();
            throw failure;
        } finally {
            left.countDown();
        }
    }

    private static Map<String, Object> settings(Map<String, String> options) {
        Map<String, Object> config = new HashMap<>(Map.of(
            ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, options.get("--bootstrap"),
            ConsumerConfig.GROUP_ID_CONFIG, options.get("--group"),
            ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest",
            ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false,
            ConsumerConfig.FETCH_MAX_WAIT_MS_CONFIG, 100,
            ConsumerConfig.MAX_POLL_RECORDS_CONFIG, 100));
        String assignor = options.get("--assignor");
        if (options.getOrDefault("--protocol", "classic").equals("consumer")) {
            config.put(ConsumerConfig.GROUP_PROTOCOL_CONFIG, "consumer");
            if (assignor != null) {
                config.put(ConsumerConfig.GROUP_REMOTE_ASSIGNOR_CONFIG, assignor);
            }
        } else {
            config.put(ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG, options.getOrDefault("--session-ms", "30000"));
            config.put(ConsumerConfig.HEARTBEAT_INTERVAL_MS_CONFIG, 500);
            config.put(ConsumerConfig.PARTITION_ASSIGNMENT_STRATEGY_CONFIG,
                ASSIGNORS.get(assignor == null ? "range" : assignor).getName());
        }
        if (options.containsKey("--instance-id")) {
            config.put(ConsumerConfig.GROUP_INSTANCE_ID_CONFIG, options.get("--instance-id"));
        }
        return config;
    }

    private void run(String topic) {
        try (consumer) {
            consumer.subscribe(List.of(topic), this);
            while (!leaving) {
                try {
                    for (ConsumerRecord<byte[], byte[]> record : consumer.poll(POLL)) {
                        System.out.println("record " + record.partition() + " " + record.offset());
                        uncommitted.put(
                            new TopicPartition(record.topic(), record.partition()),
                            new OffsetAndMetadata(record.offset() + 1));
                    }
                    commit();
                } catch (WakeupException told) {
                    // Leave the loop; closing commits and says good-bye.
                }
            }
        }
    }

    /** What is refused because the group changes is repeated when the change is known. */
    private void commit() {
        if (uncommitted.isEmpty()) {
            return;
        }
        System.out.flush(); // a member killed after the commit has told what it read
        try {
            consumer.commitSync(uncommitted);
            uncommitted.forEach((partition, offset) ->
                System.out.println("committed " + partition.partition() + " " + offset.offset()));
            System.out.flush();
            uncommitted.clear();
        } catch (WakeupException told) {
            commit();
        } catch (KafkaException error) {
            System.out.println("refused " + error);
            System.out.flush();
        }
    }

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
        partitions.forEach(partition -> held.add(partition.partition()));
        show();
    }

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
        commit();
        onPartitionsLost(partitions);
    }

    @Override
    public void onPartitionsLost(Collection<TopicPartition> partitions) {
        for (TopicPartition partition : partitions) {
            held.remove(partition.partition());
            uncommitted.remove(partition);
        }
        show();
    }

    private void show() {
        System.out.println("assigned " + held.stream().map(String::valueOf).collect(Collectors.joining(",")));
        System.out.flush();
    }
}
