"""confluent-kafka as its users use it. What the verbs have to do and print stands in tests/compatibility/main.rs."""

import sys
import time

import records
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions,
                                   NewTopic, OffsetSpec, ResourceType)


def admin(bootstrap, topic):
    client = AdminClient({"bootstrap.servers": bootstrap})
    print("brokers", len(client.describe_cluster().result().nodes))
    client.create_topics([NewTopic(topic, 3, 1)])[topic].result()
    try:
        client.create_topics([NewTopic(topic, 3, 1)])[topic].result()
    except KafkaException as error:
        print("created again", error.args[0].code())

    def partitions():
        return len(client.list_topics(topic).topics[topic].partitions)

    records.settle(lambda: partitions() == 3)
    print("partitions", partitions())
    client.create_partitions([NewPartitions(topic, 5)])[topic].result()
    records.settle(lambda: partitions() == 5)
    print("partitions", partitions())

    def retention():
        resource = ConfigResource(ResourceType.TOPIC, topic)
        return client.describe_configs([resource])[resource].result()["retention.ms"].value

    def alter(operation, value):
        entry = ConfigEntry("retention.ms", value, incremental_operation=operation)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        client.incremental_alter_configs([resource])[resource].result()

    print("retention", retention())
    alter(AlterConfigOpType.SET, "3600000")
    records.settle(lambda: retention() == "3600000")
    print("retention", retention())
    alter(AlterConfigOpType.DELETE, None)
    records.settle(lambda: retention() == "604800000")
    print("retention", retention())

    producer = Producer({"bootstrap.servers": bootstrap})
    for number in range(10):
        producer.produce(topic, str(number).encode(), partition=0, timestamp=1_700_000_000_000 + number)
    assert producer.flush(30) == 0
    partition = TopicPartition(topic, 0)

    def offset(spec):
        return client.list_offsets({partition: spec})[partition].result().offset

    def offsets():
        return f"{offset(OffsetSpec.earliest())}..{offset(OffsetSpec.latest())}"

    print("offsets", offsets())
    print("offset by time", offset(OffsetSpec.for_timestamp(1_700_000_000_006)))
    [deleted] = client.delete_records([TopicPartition(topic, 0, 4)]).values()
    assert deleted.result().low_watermark == 4
    print("offsets", offsets())
    client.delete_topics([topic])[topic].result()
    records.settle(lambda: topic not in client.list_topics().topics)
    print("deleted", str(topic not in client.list_topics().topics).lower())


def produce(bootstrap, topic, codec, file):
    problems = []

    def report(error, message, number):
        if error is not None or message.offset() != number // 3:
            problems.append(f"record {number}: {error or message.offset()}")

    producer = Producer({
        "bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True, "linger.ms": 20,
        "compression.type": codec, "message.max.bytes": 2_000_000, "error_cb": lambda error: problems.append(str(error))})
    for number, (key, value, headers) in enumerate(records.read(file)):
        producer.produce(topic, value, key, partition=number % 3, headers=headers,
                         on_delivery=lambda error, message, number=number: report(error, message, number))
        producer.poll(0)
    assert producer.flush(60) == 0
    assert not problems, problems[:5]


def consume(bootstrap, folder, arguments):
    wanted = records.wanted(arguments)
    # A group id is needed to exist, not to be used: partitions are assigned by hand and nothing is committed.
    consumer = Consumer({
        "bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False, "check.crcs": True,
        # Questions for offsets wait behind fetches.
        "fetch.wait.max.ms": 20})
    consumer.assign([TopicPartition(topic, partition, 0) for topic, partition in wanted])
    lines = {partition: [] for partition in wanted}
    deadline = time.monotonic() + 60
    while any(len(lines[partition]) < count for partition, count in wanted.items()):
        assert time.monotonic() < deadline, {key: len(value) for key, value in lines.items()}
        for record in consumer.consume(500, timeout=0.5):
            if record.error() is not None:
                raise KafkaException(record.error())
            into = lines[(record.topic(), record.partition())]
            assert record.offset() == len(into), f"offset {record.offset()} after {len(into)} records"
            into.append(records.line(record.key(), record.value(), record.headers()))
    for (topic, partition), count in wanted.items():
        assert consumer.get_watermark_offsets(TopicPartition(topic, partition)) == (0, count)
    consumer.close()
    records.store(folder, lines)


if __name__ == "__main__":
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
