// Kafka's Java client as its users use it. What the verbs have to do and print stands in tests/compatibility/main.rs.
//
// Run as: java -cp 'LIBS/*' Compatibility.java VERB BOOTSTRAP ARGUMENTS...

import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public class Compatibility {
    public static void main(String[] arguments) throws Exception {
        switch (arguments[0]) {
            case "admin" -> admin(arguments[1], arguments[2]);
            case "produce" -> {
                for (String word : Arrays.asList(arguments).subList(3, arguments.length)) {
                    produce(arguments[1], word.split("/")[0], word.split("/")[1], Path.of(arguments[2]));
                }
            }
            case "consume" -> consume(arguments[1], Path.of(arguments[2]), Arrays.asList(arguments).subList(3, arguments.length));
            default -> throw new IllegalArgumentException(arguments[0]);
        }
    }

    static void admin(String bootstrap, String topic) throws Exception {
        try (Admin admin = Admin.create(Map.<String, Object>of("bootstrap.servers", bootstrap))) {
            System.out.println("brokers " + admin.describeCluster().nodes().get().size());
            admin.createTopics(List.of(new NewTopic(topic, 3, (short) 1))).all().get();
            try {
                admin.createTopics(List.of(new NewTopic(topic, 3, (short) 1))).all().get();
            } catch (ExecutionException error) {
                System.out.println("created again " + Errors.forException(error.getCause()).code());
            }
            Callable<Integer> partitions = () -> {
                try {
                    return admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size();
                } catch (ExecutionException notYet) {
                    return 0;
                }
            };
            settle(() -> partitions.call() == 3);
            System.out.println("partitions " + partitions.call());
            admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(5))).all().get();
            settle(() -> partitions.call() == 5);
            System.out.println("partitions " + partitions.call());

            ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
            Callable<String> retention = () ->
                admin.describeConfigs(List.of(resource)).all().get().get(resource).get("retention.ms").value();
            System.out.println("retention " + retention.call());
            var set = new AlterConfigOp(new ConfigEntry("retention.ms", "3600000"), AlterConfigOp.OpType.SET);
            admin.incrementalAlterConfigs(Map.of(resource, List.of(set))).all().get();
            settle(() -> retention.call().equals("3600000"));
            System.out.println("retention " + retention.call());
            var delete = new AlterConfigOp(new ConfigEntry("retention.ms", ""), AlterConfigOp.OpType.DELETE);
            admin.incrementalAlterConfigs(Map.of(resource, List.of(delete))).all().get();
            settle(() -> retention.call().equals("604800000"));
            System.out.println("retention " + retention.call());

            TopicPartition partition = new TopicPartition(topic, 0);
            try (KafkaProducer<byte[], byte[]> producer = producer(bootstrap, "none")) {
                for (int number = 0; number < 10; number++) {
                    byte[] value = String.valueOf(number).getBytes(StandardCharsets.UTF_8);
                    producer.send(new ProducerRecord<>(topic, 0, 1_700_000_000_000L + number, null, value)).get();
                }
            }
            System.out.println("offsets " + offsets(admin, partition));
            System.out.println("offset by time " + offset(admin, partition, OffsetSpec.forTimestamp(1_700_000_000_006L)));
            admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(4))).all().get();
            System.out.println("offsets " + offsets(admin, partition));
            admin.deleteTopics(List.of(topic)).all().get();
            settle(() -> !admin.listTopics().names().get().contains(topic));
            System.out.println("deleted " + !admin.listTopics().names().get().contains(topic));
        }
    }

    static long offset(Admin admin, TopicPartition partition, OffsetSpec spec) throws Exception {
        return admin.listOffsets(Map.of(partition, spec)).all().get().get(partition).offset();
    }

    static String offsets(Admin admin, TopicPartition partition) throws Exception {
        return offset(admin, partition, OffsetSpec.earliest()) + ".." + offset(admin, partition, OffsetSpec.latest());
    }

    static KafkaProducer<byte[], byte[]> producer(String bootstrap, String codec) {
        Map<String, Object> config = Map.of(
            "bootstrap.servers", bootstrap, "enable.idempotence", true, "acks", "all", "linger.ms", 20,
            "compression.type", codec, "max.request.size", 2_000_000);
        return new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer());
    }

    static void produce(String bootstrap, String topic, String codec, Path file) throws Exception {
        try (KafkaProducer<byte[], byte[]> producer = producer(bootstrap, codec)) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (String line : Files.readAllLines(file)) {
                String[] fields = line.split("\t", -1);
                List<Header> headers = new ArrayList<>();
                for (int i = 2; i < fields.length; i++) {
                    String[] header = fields[i].split("=", 2);
                    headers.add(new RecordHeader(new String(bytes(header[0]), StandardCharsets.UTF_8), bytes(header[1])));
                }
                sent.add(producer.send(new ProducerRecord<>(topic, sent.size() % 3, null, bytes(fields[0]), bytes(fields[1]), headers)));
            }
            for (int i = 0; i < sent.size(); i++) {
                require(sent.get(i).get().offset() == i / 3, "record " + i + " is at " + sent.get(i).get().offset());
            }
        }
    }

    static void consume(String bootstrap, Path folder, List<String> arguments) throws Exception {
        Map<TopicPartition, Long> wanted = new LinkedHashMap<>();
        for (String argument : arguments) {
            String[] words = argument.split("/");
            wanted.put(new TopicPartition(words[0], Integer.parseInt(words[1])), Long.valueOf(words[2]));
        }
        long left = wanted.values().stream().mapToLong(Long::longValue).sum();
        Map<TopicPartition, Long> seen = new HashMap<>();
        Map<TopicPartition, StringBuilder> lines = new HashMap<>();
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "enable.auto.commit", false);
        try (var consumer = new KafkaConsumer<byte[], byte[]>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.assign(wanted.keySet());
            consumer.seekToBeginning(wanted.keySet());
            long deadline = System.nanoTime() + Duration.ofSeconds(60).toNanos();
            while (left > 0 && System.nanoTime() < deadline) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(500))) {
                    TopicPartition partition = new TopicPartition(record.topic(), record.partition());
                    require(record.offset() == seen.merge(partition, 1L, Long::sum) - 1, partition + ": offset " + record.offset());
                    left--;
                    lines.computeIfAbsent(partition, key -> new StringBuilder()).append(line(record));
                }
            }
            require(consumer.endOffsets(wanted.keySet()).equals(wanted), "the ends are others");
            require(seen.equals(wanted), "read " + seen);
        }
        for (var entry : lines.entrySet()) {
            Files.writeString(folder.resolve(entry.getKey().toString()), entry.getValue());
        }
    }

    /** Lines of hexadecimal text: key, value, headers (name=value), separated by tabs; null is no bytes at all. */
    static String line(ConsumerRecord<byte[], byte[]> record) {
        StringBuilder line = new StringBuilder(hex(record.key())).append('\t').append(hex(record.value()));
        for (Header header : record.headers()) {
            byte[] name = header.key().getBytes(StandardCharsets.UTF_8);
            line.append('\t').append(hex(name)).append('=').append(hex(header.value()));
        }
        return line.append('\n').toString();
    }

    static byte[] bytes(String field) {
        return field.equals("null") ? null : HexFormat.of().parseHex(field);
    }

    static String hex(byte[] bytes) {
        return bytes == null ? "null" : HexFormat.of().formatHex(bytes);
    }

    static void require(boolean holds, String complaint) {
        if (!holds) {
            throw new IllegalStateException(complaint);
        }
    }

    /** Waits a little for what a broker learns a moment later. */
    static void settle(Callable<Boolean> condition) throws Exception {
        for (int i = 0; i < 200 && !condition.call(); i++) {
            Thread.sleep(50);
        }
    }
}
