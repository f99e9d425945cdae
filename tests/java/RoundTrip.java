// Kafka's own Java client against any broker: makes a topic, sends every record of a file through an idempotent
// producer, reads the partition back and prints what came. One record a line, fields separated by tabs:
// key, value and then any number of header=value, all in hexadecimal, null as "null".
//
//   java -cp 'libs/*' RoundTrip.java BOOTSTRAP TOPIC CODEC FILE

import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import java.util.ArrayList;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public class RoundTrip {
    static final String BYTES_IN = ByteArraySerializer.class.getName();
    static final String BYTES_OUT = ByteArrayDeserializer.class.getName();

    public static void main(String[] arguments) throws Exception {
        String bootstrap = arguments[0], topic = arguments[1], codec = arguments[2];
        List<String> lines = Files.readAllLines(Path.of(arguments[3]));
        try (Admin admin = Admin.create(Map.<String, Object>of("bootstrap.servers", bootstrap))) {
            admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1))).all().get();
        }
        send(bootstrap, topic, codec, lines);
        receive(bootstrap, topic, lines.size());
    }

    static void send(String bootstrap, String topic, String codec, List<String> lines) throws Exception {
        Map<String, Object> config = Map.of(
            "bootstrap.servers", bootstrap, "key.serializer", BYTES_IN, "value.serializer", BYTES_IN,
            "enable.idempotence", true, "acks", "all", "compression.type", codec, "linger.ms", 5);
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(config)) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (String line : lines) {
                String[] fields = line.split("\t", -1);
                List<Header> headers = new ArrayList<>();
                for (int i = 2; i < fields.length; i++) {
                    String[] header = fields[i].split("=", 2);
                    headers.add(new RecordHeader(new String(bytes(header[0]), StandardCharsets.UTF_8), bytes(header[1])));
                }
                sent.add(producer.send(new ProducerRecord<>(topic, 0, null, bytes(fields[0]), bytes(fields[1]), headers)));
            }
            for (int i = 0; i < sent.size(); i++) {
                if (sent.get(i).get().offset() != i) {
                    throw new IllegalStateException("record " + i + " is at " + sent.get(i).get().offset());
                }
            }
        }
    }

    static void receive(String bootstrap, String topic, int count) {
        Map<String, Object> config = Map.of(
            "bootstrap.servers", bootstrap, "key.deserializer", BYTES_OUT, "value.deserializer", BYTES_OUT,
            "enable.auto.commit", false);
        StringBuilder out = new StringBuilder();
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(config)) {
            TopicPartition partition = new TopicPartition(topic, 0);
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            if (consumer.endOffsets(List.of(partition)).get(partition) != count) {
                throw new IllegalStateException("the end is not " + count);
            }
            int seen = 0;
            long deadline = System.nanoTime() + Duration.ofSeconds(60).toNanos();
            while (seen < count && System.nanoTime() < deadline) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(500))) {
                    if (record.offset() != seen) {
                        throw new IllegalStateException("offset " + record.offset() + " after " + seen + " records");
                    }
                    seen++;
                    out.append(hex(record.key())).append('\t').append(hex(record.value()));
                    for (Header header : record.headers()) {
                        byte[] name = header.key().getBytes(StandardCharsets.UTF_8);
                        out.append('\t').append(hex(name)).append('=').append(hex(header.value()));
                    }
                    out.append('\n');
                }
            }
        }
        System.out.print(out);
    }

    static byte[] bytes(String field) {
        return field.equals("null") ? null : HexFormat.of().parseHex(field);
    }

    static String hex(byte[] bytes) {
        return bytes == null ? "null" : HexFormat.of().formatHex(bytes);
    }
}
