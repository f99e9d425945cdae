//! Kafka's command line tools by the hundred: one Java machine runs them one after the other, because starting a machine
//! costs a second and most calls cost a tenth. What a tool prints, what its clients log and how it exits come apart.
#![allow(clippy::disallowed_methods, reason = "tests work with real processes")]

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use super::java::Java;

/// How one call of a tool ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ran {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// Warnings and errors that the clients inside the tool logged, a line each.
    pub log: String,
}

/// A Java machine that runs tools, one at a time.
#[derive(Debug)]
pub struct Tools {
    child: Child,
    requests: ChildStdin,
    answers: ChildStdout,
    classes: BTreeMap<String, String>,
}

impl Tools {
    /// Starts the machine.
    pub fn start(java: &Java) -> Self {
        let mut command = Command::new("java");
        command.args(["-Xmx768m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        command.args(["--add-opens", "java.base/java.lang=ALL-UNNAMED", "-cp", &java.class_path()]);
        command.arg(java.source("ToolDriver.java"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("java is there");
        let requests = child.stdin.take().expect("piped");
        let answers = child.stdout.take().expect("piped");
        Self { child, requests, answers, classes: java.classes() }
    }

    /// Runs `tool` (its short name, see `kafka-peer tools`) with `input` on standard input. A call that does not end
    /// in `seconds` is given up with exit code 124.
    ///
    /// # Panics
    /// When there is no such tool or the machine is gone.
    pub fn run(&mut self, tool: &str, arguments: &[String], input: &str, seconds: u32) -> Ran {
        let class = self.classes.get(tool).unwrap_or_else(|| panic!("no tool is called {tool}"));
        let mut request = Vec::new();
        put(&mut request, class);
        request.extend((arguments.len() as i32).to_be_bytes());
        arguments.iter().for_each(|argument| put(&mut request, argument));
        put(&mut request, input);
        request.extend(seconds.to_be_bytes());
        self.requests.write_all(&request).expect("the machine runs");
        self.read_answer().unwrap_or_else(|error| panic!("the machine does not answer {tool}: {error}"))
    }

    fn read_answer(&mut self) -> io::Result<Ran> {
        let code = self.read_number()?;
        Ok(Ran { code, out: self.read_text()?, err: self.read_text()?, log: self.read_text()? })
    }

    fn read_number(&mut self) -> io::Result<i32> {
        let mut bytes = [0; 4];
        self.answers.read_exact(&mut bytes)?;
        Ok(i32::from_be_bytes(bytes))
    }

    fn read_text(&mut self) -> io::Result<String> {
        let mut bytes = vec![0; self.read_number()? as usize];
        self.answers.read_exact(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Drop for Tools {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn put(request: &mut Vec<u8>, text: &str) {
    request.extend((text.len() as i32).to_be_bytes());
    request.extend(text.as_bytes());
}
