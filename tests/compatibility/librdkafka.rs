//! librdkafka through the crate rdkafka, which has no call for some requests of an administrator: offsets are asked of a
//! consumer.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext, Message, Offset, TopicPartitionList,
    admin::{
        AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
    },
    client::DefaultClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, Headers, OwnedHeaders},
    producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer},
};

use crate::records::{field, hex, unhex};

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn version() -> String {
    rdkafka::util::get_rdkafka_version().1
}

/// Keeps what the library complains about.
#[derive(Debug, Default, Clone)]
struct Context {
    complaints: Arc<Mutex<Vec<String>>>,
    /// Offsets by record number, as reported.
    reports: Arc<Mutex<BTreeMap<usize, i64>>>,
}

impl Context {
    fn complain(&self, complaint: String) {
        self.complaints.lock().expect("no panic under it").push(complaint);
    }

    fn finish(&self) -> Result<(), String> {
        let complaints = self.complaints.lock().expect("no panic under it");
        if complaints.is_empty() { Ok(()) } else { Err(complaints.join("\n")) }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if level as i32 <= RDKafkaLogLevel::Warning as i32 {
            self.complain(format!("{facility} {message}"));
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.complain(format!("{error}: {reason}"));
    }
}

impl ConsumerContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<usize>) {
        match result {
            Ok(message) => {
                self.reports.lock().expect("no panic under it").insert(*number, message.offset());
            }
            Err((error, _)) => self.complain(format!("record {number}: {error}")),
        }
    }
}

fn config(bootstrap: &str, settings: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    settings.iter().for_each(|(key, value)| {
        config.set(*key, *value);
    });
    config
}

pub(crate) fn admin(bootstrap: &str, topic: &str) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(administer(bootstrap, topic)).map_err(|error| format!("admin: {error}"))
}

async fn administer(bootstrap: &str, topic: &str) -> Result<String, KafkaError> {
    let mut printed = String::new();
    let mut print =
        |what: &str, value: String| writeln!(printed, "{what} {value}").expect("memory takes all");
    let admin: AdminClient<DefaultClientContext> = config(bootstrap, &[]).create()?;
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
    print("brokers", admin.inner().fetch_metadata(None, PATIENCE)?.brokers().len().to_string());
    let three = [NewTopic::new(topic, 3, TopicReplication::Fixed(1))];
    accepted(admin.create_topics(&three, &options).await?)?;
    let again = admin.create_topics(&three, &options).await?;
    let code = again[0].as_ref().err().map(|(_, code)| *code as i32);
    print("created again", code.map_or("nothing".to_owned(), |code| code.to_string()));
    let partitions = || -> Result<usize, KafkaError> {
        let metadata = admin.inner().fetch_metadata(Some(topic), PATIENCE)?;
        Ok(metadata.topics()[0].partitions().len())
    };
    print("partitions", partitions()?.to_string());
    accepted(admin.create_partitions(&[NewPartitions::new(topic, 5)], &options).await?)?;
    settle(|| Ok(partitions()? == 5))?;
    print("partitions", partitions()?.to_string());

    for set in [None, Some("3600000"), Some("")] {
        if let Some(value) = set {
            // The old request, which replaces all that is set.
            let change = AlterConfig::new(ResourceSpecifier::Topic(topic));
            let change = if value.is_empty() { change } else { change.set("retention.ms", value) };
            let altered = admin.alter_configs(&[change], &options).await?;
            altered[0].as_ref().map_err(|(_, code)| KafkaError::AdminOp(*code))?;
        }
        let resource = [ResourceSpecifier::Topic(topic)];
        let described = admin.describe_configs(&resource, &options).await?;
        let described = described[0].as_ref().map_err(|code| KafkaError::AdminOp(*code))?;
        let value = described.get("retention.ms").and_then(|entry| entry.value.clone());
        print("retention", value.unwrap_or_default());
    }

    let producer: ThreadedProducer<Context> =
        config(bootstrap, &[]).create_with_context(Context::default())?;
    for number in 0..10 {
        let value = number.to_string();
        let record = BaseRecord::<(), str, _>::with_opaque_to(topic, Box::new(number)).partition(0);
        let record = record.payload(&value).timestamp(1_700_000_000_000 + number as i64);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(PATIENCE)?;
    let consumer: BaseConsumer = config(bootstrap, &[("group.id", "unused")]).create()?;
    let offsets =
        || consumer.fetch_watermarks(topic, 0, PATIENCE).map(|(low, high)| format!("{low}..{high}"));
    print("offsets", offsets()?);
    let mut times = TopicPartitionList::new();
    times.add_partition_offset(topic, 0, Offset::Offset(1_700_000_000_006))?;
    let found = consumer.offsets_for_times(times, PATIENCE)?;
    let found = found.elements_for_topic(topic)[0].offset().to_raw();
    print("offset by time", found.unwrap_or_default().to_string());
    let mut until = TopicPartitionList::new();
    until.add_partition_offset(topic, 0, Offset::Offset(4))?;
    admin.delete_records(&until, &options).await?;
    print("offsets", offsets()?);
    accepted(admin.delete_topics(&[topic], &options).await?)?;
    let deleted = || -> Result<bool, KafkaError> {
        let metadata = admin.inner().fetch_metadata(None, PATIENCE)?;
        Ok(metadata.topics().iter().all(|found| found.name() != topic))
    };
    settle(deleted)?;
    print("deleted", deleted()?.to_string());
    Ok(printed)
}

fn accepted(results: Vec<Result<String, (String, RDKafkaErrorCode)>>) -> Result<(), KafkaError> {
    results.into_iter().try_for_each(|result| result.map(drop).map_err(|(_, code)| KafkaError::AdminOp(code)))
}

/// Waits a little for what a broker learns a moment later.
fn settle(condition: impl Fn() -> Result<bool, KafkaError>) -> Result<(), KafkaError> {
    for _ in 0..200 {
        if condition()? {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

pub(crate) fn produce(bootstrap: &str, topic: &str, codec: &str, file: &Path) -> Result<(), String> {
    let context = Context::default();
    let settings = [
        ("acks", "all"),
        ("enable.idempotence", "true"),
        ("linger.ms", "20"),
        ("compression.codec", codec),
        ("message.max.bytes", "2000000"),
    ];
    let producer: ThreadedProducer<Context> = config(bootstrap, &settings)
        .create_with_context(context.clone())
        .map_err(|error| error.to_string())?;
    let text = fs::read_to_string(file).map_err(|error| error.to_string())?;
    for (number, line) in text.lines().enumerate() {
        let fields: Vec<&str> = line.split('\t').collect();
        let (key, value) = (unhex(fields[0]), unhex(fields[1]));
        let mut headers = OwnedHeaders::new();
        for pair in &fields[2..] {
            let (name, value) = pair.split_once('=').expect("a pair");
            let name = String::from_utf8(unhex(name).expect("a name")).expect("text");
            headers = headers.insert(Header { key: &name, value: unhex(value).as_deref() });
        }
        let mut record = BaseRecord::<[u8], [u8], _>::with_opaque_to(topic, Box::new(number));
        record.partition = Some((number % 3) as i32);
        record.key = key.as_deref();
        record.payload = value.as_deref();
        record.headers = (fields.len() > 2).then_some(headers);
        producer.send(record).map_err(|(error, _)| error.to_string())?;
    }
    producer.flush(PATIENCE).map_err(|error| error.to_string())?;
    let reports = context.reports.lock().expect("no panic under it");
    for (number, _) in text.lines().enumerate() {
        let offset = reports.get(&number).copied();
        if offset != Some(number as i64 / 3) {
            return Err(format!("record {number} of {topic} is at {offset:?}"));
        }
    }
    drop(reports);
    context.finish()
}

pub(crate) fn consume(bootstrap: &str, folder: &Path, wanted: &[(String, i32, usize)]) -> Result<(), String> {
    let context = Context::default();
    let read = || -> Result<BTreeMap<(String, i32), Vec<String>>, KafkaError> {
        // A group id is needed to exist, not to be used: partitions are assigned by hand and nothing is committed.
        // Questions for offsets wait behind fetches.
        let settings = [
            ("group.id", "unused"),
            ("enable.auto.commit", "false"),
            ("check.crcs", "true"),
            ("fetch.wait.max.ms", "20"),
        ];
        let consumer: BaseConsumer<Context> =
            config(bootstrap, &settings).create_with_context(context.clone())?;
        let mut assignment = TopicPartitionList::new();
        for (topic, partition, _) in wanted {
            assignment.add_partition_offset(topic, *partition, Offset::Beginning)?;
        }
        consumer.assign(&assignment)?;
        let mut lines: BTreeMap<(String, i32), Vec<String>> = BTreeMap::new();
        let (mut left, begun) = (wanted.iter().map(|(_, _, count)| count).sum::<usize>(), Instant::now());
        while left > 0 && begun.elapsed() < PATIENCE {
            let Some(message) = consumer.poll(Duration::from_millis(200)) else { continue };
            let message = message?;
            let into = lines.entry((message.topic().to_owned(), message.partition())).or_default();
            if message.offset() != into.len() as i64 {
                context.complain(format!("offset {} after {} records", message.offset(), into.len()));
            }
            into.push(line(&message));
            left -= 1;
        }
        for (topic, partition, count) in wanted {
            let ends = consumer.fetch_watermarks(topic, *partition, PATIENCE)?;
            if ends != (0, *count as i64) {
                context.complain(format!("{topic}-{partition} goes from {} to {}", ends.0, ends.1));
            }
        }
        Ok(lines)
    };
    for ((topic, partition), lines) in read().map_err(|error| format!("consume: {error}"))? {
        let file = folder.join(format!("{topic}-{partition}"));
        fs::write(file, lines.concat()).map_err(|error| error.to_string())?;
    }
    context.finish()
}

fn line(message: &impl Message) -> String {
    let mut line = format!("{}\t{}", field(message.key()), field(message.payload()));
    for header in message.headers().into_iter().flat_map(Headers::iter) {
        let _ = write!(line, "\t{}={}", hex(header.key.as_bytes()), field(header.value));
    }
    line + "\n"
}
