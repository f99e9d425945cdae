//! Which families there are, in which version, how to run them, and what each may say without its being a complaint.

use std::{path::Path, process::Command};

use gracchus_tests::{
    java::Java,
    languages::{self, Words},
};

use crate::{librdkafka, pinned};

/// A client library with the program that uses it.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) name: &'static str,
    /// The library's own name.
    pub(crate) client: String,
    pub(crate) version: String,
    /// It cannot express headers without value, or two of one name.
    pub(crate) plain: bool,
    /// What it says on standard error that is no complaint.
    says: &'static [&'static str],
    program: Program,
}

#[derive(Debug)]
enum Program {
    /// Another process.
    Other(Words),
    /// librdkafka, in this one.
    Here,
}

/// All whose language is installed.
pub(crate) fn families() -> Vec<Family> {
    let java = Java::find("the compatibility of Kafka's Java client").map(|java| Family {
        name: "java",
        client: "Apache Kafka's Java client".into(),
        version: between(&pinned("peers/apache-kafka/pom.xml"), "<kafka.version>", "<"),
        plain: false,
        says: &[],
        program: Program::Other(java.command("Compatibility.java")),
    });
    let requirements = pinned("python/requirements.txt");
    let kafka_python =
        languages::python("kafka_python.py", "the compatibility of kafka-python").map(|words| Family {
            name: "kafka-python",
            client: "kafka-python (Python)".into(),
            version: between(&requirements, "kafka-python==", "\n"),
            plain: true,
            says: &[],
            program: Program::Other(words),
        });
    let confluent =
        languages::python("confluent.py", "the compatibility of confluent-kafka").map(|words| Family {
            name: "confluent-kafka",
            client: "confluent-kafka (Python)".into(),
            version: between(&requirements, "confluent-kafka==", "\n"),
            plain: false,
            // The topic that the administrator gives more partitions.
            says: &["partition count changed from 3 to 5"],
            program: Program::Other(words),
        });
    let franz = languages::go("the compatibility of franz-go").map(|words| Family {
        name: "franz-go",
        client: "franz-go (Go)".into(),
        version: between(&pinned("go/go.mod"), "github.com/twmb/franz-go v", "\n"),
        plain: false,
        says: &[],
        program: Program::Other(words),
    });
    let kafkajs = languages::node("kafkajs.js", "the compatibility of kafkajs").map(|words| Family {
        name: "kafkajs",
        client: "kafkajs (JavaScript; consumer below its groups)".into(),
        version: between(&pinned("node/package.json"), "\"kafkajs\": \"", "\""),
        plain: true,
        // The topic that is created twice.
        says: &["\"error\":\"Topic creation errors\""],
        program: Program::Other(words),
    });
    [java, Some(librdkafka()), confluent, kafka_python, franz, kafkajs].into_iter().flatten().collect()
}

/// librdkafka through the crate.
pub(crate) fn librdkafka() -> Family {
    Family {
        name: "librdkafka",
        client: "librdkafka (C; through the crate rdkafka)".into(),
        version: librdkafka::version(),
        plain: false,
        says: &[],
        program: Program::Here,
    }
}

impl Family {
    pub(crate) fn admin(&self, bootstrap: &str, topic: &str) -> Result<String, String> {
        match &self.program {
            Program::Here => librdkafka::admin(bootstrap, topic),
            Program::Other(words) => self.run(words, &["admin", bootstrap, topic]),
        }
    }

    /// (topic, codec) each.
    pub(crate) fn produce(
        &self,
        bootstrap: &str,
        file: &Path,
        topics: &[(String, &str)],
    ) -> Result<(), String> {
        let Program::Other(words) = &self.program else {
            let mut topics = topics.iter();
            return topics.try_for_each(|(topic, codec)| librdkafka::produce(bootstrap, topic, codec, file));
        };
        let topics: Vec<String> = topics.iter().map(|(topic, codec)| format!("{topic}/{codec}")).collect();
        let mut arguments = vec!["produce", bootstrap, file.to_str().expect("a readable path")];
        arguments.extend(topics.iter().map(String::as_str));
        self.run(words, &arguments).map(drop)
    }

    /// (topic, partition, number of records) each.
    pub(crate) fn consume(
        &self,
        bootstrap: &str,
        folder: &Path,
        wanted: &[(String, i32, usize)],
    ) -> Result<(), String> {
        let Program::Other(words) = &self.program else {
            return librdkafka::consume(bootstrap, folder, wanted);
        };
        let wanted: Vec<String> =
            wanted.iter().map(|(topic, partition, count)| format!("{topic}/{partition}/{count}")).collect();
        let mut arguments = vec!["consume", bootstrap, folder.to_str().expect("a readable path")];
        arguments.extend(wanted.iter().map(String::as_str));
        self.run(words, &arguments).map(drop)
    }

    /// Standard output; what a client says beside that and is not known is an error.
    fn run(&self, words: &Words, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(arguments).env("KAFKAJS_NO_PARTITIONER_WARNING", "1");
        // Cargo points at libraries of its own.
        command.env("PYTHONDONTWRITEBYTECODE", "1").env_remove("LD_LIBRARY_PATH");
        let output = command.output().map_err(|error| error.to_string())?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            return Err(format!("{} failed: {}\n{out}{err}", arguments[0], output.status));
        }
        let known = |line: &&str| self.says.iter().any(|says| line.contains(says));
        // Some log to standard output, where only the administrator has something to say.
        let spoken = if arguments[0] == "admin" { "" } else { out.as_ref() };
        let complaints: Vec<&str> = spoken.lines().chain(err.lines()).filter(|line| !known(line)).collect();
        if !complaints.is_empty() {
            return Err(format!("{} complains:\n{}", arguments[0], complaints.join("\n")));
        }
        Ok(out.into_owned())
    }
}

/// What stands in `text` between `from` and `to`.
fn between(text: &str, from: &str, to: &str) -> String {
    let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("no {from} in {text}"));
    rest.split(to).next().expect("split gives one").trim().to_owned()
}
