"""kafka-python as its users use it. What the verbs have to do and print stands in tests/compatibility/main.rs."""

import logging
import sys
import time

import records
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, OffsetSpec
from kafka.errors import TopicAlreadyExistsError


def admin(bootstrap, topic):
    client = KafkaAdminClient(bootstrap_servers=bootstrap)
    print("brokers", len(client.describe_cluster()["brokers"]))
    client.create_topics({topic: {"num_partitions": 3, "replication_factor": 1}}, wait_for_metadata=True)
    try:
        client.create_topics({topic: {"num_partitions": 3, "replication_factor": 1}})
    except TopicAlreadyExistsError as error:
        print("created again", error.errno)
    print("partitions", len(client.describe_topics([topic])[0]["partitions"]))
    client.create_partitions({topic: 5})
    records.settle(lambda: len(client.describe_topics([topic])[0]["partitions"]) == 5)
    print("partitions", len(client.describe_topics([topic])[0]["partitions"]))

    def retention():
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs=None)
        described = client.describe_configs([resource], config_filter="all")
        return described["topic"][topic]["retention.ms"]["value"]

    print("retention", retention())
    client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs={"retention.ms": "3600000"})])
    records.settle(lambda: retention() == "3600000")
    print("retention", retention())
    client.reset_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=["retention.ms"])])
    records.settle(lambda: retention() == "604800000")
    print("retention", retention())

    producer = KafkaProducer(bootstrap_servers=bootstrap)
    for number in range(10):
        producer.send(topic, value=b"%d" % number, key=b"k", partition=0, timestamp_ms=1_700_000_000_000 + number)
    producer.close()
    partition = TopicPartition(topic, 0)

    def offsets():
        bounds = [client.list_partition_offsets({partition: spec})[partition].offset
                  for spec in (OffsetSpec.EARLIEST, OffsetSpec.LATEST)]
        return "%d..%d" % tuple(bounds)

    print("offsets", offsets())
    print("offset by time", client.list_partition_offsets({partition: 1_700_000_000_006})[partition].offset)
    client.delete_records({partition: 4})
    print("offsets", offsets())
    client.delete_topics([topic])
    records.settle(lambda: topic not in client.list_topics())
    print("deleted", str(topic not in client.list_topics()).lower())
    client.close()


def produce(bootstrap, topic, codec, file):
    producer = KafkaProducer(
        bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, linger_ms=20,
        compression_type=None if codec == "none" else codec, max_request_size=2_000_000)
    sent = []
    for number, (key, value, headers) in enumerate(records.read(file)):
        sent.append(producer.send(topic, value=value, key=key, headers=headers, partition=number % 3))
    producer.flush()
    for number, future in enumerate(sent):
        offset = future.get(timeout=30).offset
        assert offset == number // 3, f"record {number} is at {offset}"
    producer.close()


def consume(bootstrap, folder, arguments):
    wanted = records.wanted(arguments)
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="none", check_crcs=True)
    partitions = [TopicPartition(*partition) for partition in wanted]
    consumer.assign(partitions)
    consumer.seek_to_beginning()
    lines = {partition: [] for partition in wanted}
    deadline = time.monotonic() + 60
    while any(len(lines[partition]) < count for partition, count in wanted.items()):
        assert time.monotonic() < deadline, {key: len(value) for key, value in lines.items()}
        for batch in consumer.poll(timeout_ms=500).values():
            for record in batch:
                into = lines[(record.topic, record.partition)]
                assert record.offset == len(into), f"offset {record.offset} after {len(into)} records"
                into.append(records.line(record.key, record.value, record.headers))
    ends = consumer.end_offsets(partitions)
    assert {(key.topic, key.partition): end for key, end in ends.items()} == wanted, ends
    consumer.close()
    records.store(folder, lines)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    verb, arguments = sys.argv[1], sys.argv[2:]
    if verb == "admin":
        admin(*arguments)
    elif verb == "produce":
        for word in arguments[2:]:
            produce(arguments[0], *word.split("/"), arguments[1])
    elif verb == "consume":
        consume(arguments[0], arguments[1], arguments[2:])
    else:
        sys.exit(f"no verb {verb}")
