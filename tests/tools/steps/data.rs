//! Records: written, read, counted, deleted, measured.

use crate::step::{Lines, Step, step};

/// Why a client of ours has nothing to say where one of Apache Kafka has to wait.
const CREATED: &str = "a topic that ours makes for a client is there in the first answer";

const LINES: &str = "one\ntwo\nthree\n\nfive\nsix with spaces\n";

pub(crate) fn data() -> Vec<Step> {
    [producers(), consumers(), offsets(), deletion(), measurements()].concat()
}

fn producers() -> Vec<Step> {
    let create = |line| step("topics", "--create", line);
    let produce = |line| step("console-producer", "lines", line).input(LINES);
    let keyed = |line| step("console-producer", "keys and headers", line);
    let mut steps = vec![
        create("--create --topic lines --partitions 1"),
        create("--create --topic keyed --partitions 1"),
        create("--create --topic codecs --partitions 1"),
        create("--create --topic stamped --partitions 1 --config message.timestamp.type=LogAppendTime"),
        create("--create --topic measured --partitions 1"),
        create("--create --topic verified --partitions 1"),
        produce("--topic lines --sync --command-property linger.ms=0"),
        produce("--topic lines --command-property acks=1"),
        produce("--topic stamped --command-property acks=0"),
        keyed("--topic keyed --reader-property parse.key=true --reader-property key.separator=:")
            .input("a:1\nb:2\n:3\n"),
        keyed("--topic keyed --reader-property parse.key=true --reader-property parse.headers=true --reader-property null.marker=NULL")
            .input("h1:v1,h2:v2\tkey\tvalue\nh1:v1\tNULL\tNULL\n\tkey\tno headers\n"),
        keyed("--topic keyed --reader-property parse.key=true").input("no separator\n"),
        step("console-producer", "to a topic that is not there", "--topic made-by-itself --command-property max.block.ms=5000").input("hello\n")
            .differs("reported a recoverable issue", CREATED),
    ];
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    let lines = [
        "--topic codecs --compression-codec none",
        "--topic codecs --compression-codec gzip",
        "--topic codecs --compression-codec snappy",
        "--topic codecs --compression-codec lz4",
        "--topic codecs --compression-codec zstd",
    ];
    for (codec, line) in codecs.iter().zip(lines) {
        let text: String = (0..200).map(|number| format!("{codec} line {number}\n")).collect();
        steps.push(step("console-producer", "every codec", line).input(&text));
    }
    steps
}

fn consumers() -> Vec<Step> {
    let consume = |line| step("console-consumer", "--partition", line);
    vec![
        consume("--topic lines --partition 0 --from-beginning --max-messages 12 --timeout-ms 8000"),
        consume("--topic lines --partition 0 --offset earliest --max-messages 3 --timeout-ms 8000"),
        consume(
            "--topic lines --partition 0 --offset 4 --max-messages 2 --timeout-ms 8000 --formatter-property print.offset=true --formatter-property print.partition=true",
        ),
        consume("--topic lines --partition 0 --offset latest --timeout-ms 1500"),
        consume("--topic lines --partition 0 --offset 100000 --timeout-ms 1500"),
        consume("--topic lines --partition 7 --offset 0 --timeout-ms 1500"),
        consume("--topic made-by-reading --partition 0 --offset 0 --timeout-ms 1500")
            .differs("reported a recoverable issue", CREATED),
        consume(
            "--topic keyed --partition 0 --offset earliest --max-messages 5 --timeout-ms 8000 --formatter-property print.key=true --formatter-property print.headers=true --formatter-property print.timestamp=true",
        ),
        consume(
            "--topic stamped --partition 0 --offset earliest --max-messages 6 --timeout-ms 8000 --formatter-property print.timestamp=true",
        ),
        step(
            "console-consumer",
            "every codec",
            "--topic codecs --partition 0 --offset earliest --max-messages 1000 --timeout-ms 8000 --formatter-property print.offset=true",
        ),
        step(
            "console-consumer",
            "--isolation-level",
            "--topic lines --partition 0 --offset earliest --max-messages 12 --timeout-ms 8000 --isolation-level read_committed",
        ),
    ]
}

fn offsets() -> Vec<Step> {
    let offsets = |verb, line| step("get-offsets", verb, line);
    vec![
        offsets("latest", "--topic lines"),
        offsets("latest", "--topic-partitions lines:0,orders:1-3"),
        offsets("latest", "--topic lines --time latest"),
        offsets("earliest", "--topic lines --time earliest"),
        offsets("earliest", "--topic lines --time -2"),
        offsets("max-timestamp", "--topic stamped --time max-timestamp"),
        offsets("max-timestamp", "--topic orders --time -3"),
        offsets("by time", "--topic lines --time 0"),
        offsets("by time", "--topic lines --time 32503680000000"),
        offsets("tiered", "--topic lines --time earliest-local"),
        offsets("tiered", "--topic lines --time latest-tiered"),
        offsets("tiered", "--topic lines --time -6"),
        offsets("errors", "--topic nowhere"),
        offsets("errors", "--topic lines --time yesterday"),
        offsets("by pattern", "--exclude-internal-topics --topic orders|lines|codecs|default.*|many"),
    ]
}

fn deletion() -> Vec<Step> {
    let delete = |line| step("delete-records", "--offset-json-file", line);
    vec![
        delete("--offset-json-file {files}/delete.json"),
        delete("--offset-json-file {files}/delete-again.json"),
        delete("--offset-json-file {files}/delete-all.json"),
        delete("--offset-json-file {files}/delete-beyond.json"),
        step("get-offsets", "earliest", "--topic lines --time earliest"),
        step("get-offsets", "earliest", "--topic keyed --time earliest"),
        step(
            "console-consumer",
            "--partition",
            "--topic lines --partition 0 --offset earliest --max-messages 9 --timeout-ms 8000",
        ),
        step("console-consumer", "--partition", "--topic lines --partition 0 --offset 1 --timeout-ms 1500"),
        step("log-dirs", "--describe", "--describe --topic-list lines,keyed,stamped"),
        step("log-dirs", "--describe", "--describe --broker-list 1 --topic-list orders"),
        step("log-dirs", "--describe", "--describe --broker-list 1,7 --topic-list orders"),
        step("log-dirs", "--describe", "--describe --topic-list nowhere"),
    ]
}

/// The last call of all: Apache Kafka makes a topic of its own for it.
pub(crate) fn end_to_end() -> Vec<Step> {
    let reason = "it commits an offset when it has measured, and waits for a group coordinator, which ours does not have yet";
    let run = step(
        "e2e-latency",
        "run",
        "--topic measured --num-records 500 --producer-acks all --record-size 100",
    );
    let run = run.figures().at_most(8).all_differ(&["exit code", "the tool did not end"], reason);
    vec![run.left_out(Lines::Perhaps("Offset commit failed"), reason)]
}

fn measurements() -> Vec<Step> {
    vec![
        step("producer-perf-test", "run", "--topic measured --num-records 2000 --record-size 100 --throughput -1").figures(),
        step("producer-perf-test", "run", "--topic measured --num-records 100 --record-size 100 --throughput -1 --command-property acks=1 compression.type=lz4 --print-metrics").figures(),
        step("verifiable-producer", "run", "--topic verified --max-messages 20"),
        step("verifiable-producer", "run", "--topic verified --max-messages 5 --value-prefix 7 --repeating-keys 3 --acks 1"),
        step("get-offsets", "latest", "--topic measured"),
    ]
}
