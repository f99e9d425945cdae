//! A child process with an end: bounded in time and in memory, for who runs code that may hang or grow without end. A machine
//! that is busy with others is not taken for a hang: what counts is the time of a core, and real time only far beyond.
//! Never: a child that outlives its limits.

#![allow(clippy::disallowed_methods, reason = "the runner lives in real time, on the real machine")]

use std::{
    fs,
    io::{self, BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// What a child may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of a core.
    pub processor: Duration,
    /// From its start to its end.
    pub real: Duration,
    /// That lie in memory.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { processor: Duration::from_secs(300), real: Duration::from_secs(600), bytes: 4 << 30 }
    }
}

/// How a child ended.
#[derive(Debug, Clone)]
pub(crate) enum Ended {
    /// By itself.
    Itself(ExitStatus),
    /// It did not end in its time.
    TooLong(String),
    /// It took more memory than it may.
    TooLarge(String),
    /// Its reader had seen enough.
    Enough,
}

/// Runs `command` to its end; `line` sees each line of its output and says whether to go on. Returns how it ended and what it
/// wrote to its error stream.
pub(crate) fn run(
    command: &mut Command,
    limits: Limits,
    mut line: impl FnMut(String) -> bool + Send,
) -> io::Result<(Ended, String)> {
    let began = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (output, mut errors) = (child.stdout.take(), child.stderr.take());
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let lines = output.map(BufReader::new).into_iter().flat_map(BufRead::lines);
            for text in lines.map_while(Result::ok) {
                if !line(text) {
                    enough.store(true, Ordering::Relaxed);
                }
            }
        });
        let errors = scope.spawn(move || {
            let mut text = Vec::new();
            let _ = errors.as_mut().map(|errors| errors.read_to_end(&mut text));
            String::from_utf8_lossy(&text).into_owned()
        });
        let ended = wait(&mut child, limits, began, &enough)?;
        Ok((ended, errors.join().unwrap_or_default()))
    })
}

fn wait(child: &mut Child, limits: Limits, began: Instant, enough: &AtomicBool) -> io::Result<Ended> {
    const LOOK: Duration = Duration::from_millis(100);
    let mut looked = began;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Ended::Itself(status));
        }
        let now = Instant::now();
        let beyond = if enough.load(Ordering::Relaxed) {
            Some(Ended::Enough)
        } else if now.duration_since(looked) >= LOOK {
            looked = now;
            beyond(child.id(), limits, began.elapsed())
        } else {
            None
        };
        if let Some(ended) = beyond {
            let _ = child.kill();
            child.wait()?;
            return Ok(ended);
        }
        thread::sleep(Duration::from_millis(3));
    }
}

/// What the process has too much of.
fn beyond(process: u32, limits: Limits, elapsed: Duration) -> Option<Ended> {
    let Limits { processor, real, bytes } = limits;
    if elapsed > real {
        return Some(Ended::TooLong(format!("no end within {real:?}")));
    }
    if processor_time(&format!("/proc/{process}/stat")).is_some_and(|used| used > processor) {
        return Some(Ended::TooLong(format!("no end within {processor:?} of a core")));
    }
    let resident = fs::read_to_string(format!("/proc/{process}/statm")).ok()?;
    let pages: u64 = resident.split_whitespace().nth(1)?.parse().ok()?;
    (pages * 4_096 > bytes).then(|| Ended::TooLarge(format!("more than {} MiB of memory", bytes >> 20)))
}

/// What a process has used of a core, by its `stat` file.
pub(crate) fn processor_time(stat: &str) -> Option<Duration> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string(stat).ok()?;
    // The name, in parentheses, may hold blanks; user and system time are the 12th and 13th field behind it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(Duration::from_secs_f64((user + system) / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limits: Limits) -> (Ended, Vec<String>) {
        let mut lines = Vec::new();
        let mut command = Command::new("sh");
        let ended = run(command.args(["-c", script]), limits, |line| {
            let last = line == "last";
            lines.push(line);
            !last
        });
        (ended.unwrap().0, lines)
    }

    #[test]
    fn a_child_ends_by_itself_at_its_limits_or_when_enough_was_read() {
        let (ended, lines) = shell("echo one; echo two", Limits::default());
        assert!(matches!(ended, Ended::Itself(status) if status.success()), "{ended:?}");
        assert_eq!(lines, ["one", "two"]);
        let short = Limits { processor: Duration::from_millis(200), ..Limits::default() };
        let (ended, _) = shell("while :; do :; done", short);
        assert!(matches!(ended, Ended::TooLong(_)), "{ended:?}");
        let asleep = Limits { real: Duration::from_millis(200), ..Limits::default() };
        let (ended, _) = shell("exec sleep 60", asleep);
        assert!(matches!(ended, Ended::TooLong(_)), "{ended:?}");
        let small = Limits { bytes: 1, ..Limits::default() };
        let (ended, _) = shell("exec sleep 60", small);
        assert!(matches!(ended, Ended::TooLarge(_)), "{ended:?}");
        let (ended, _) = shell("echo last; exec sleep 60", Limits::default());
        assert!(matches!(ended, Ended::Enough), "{ended:?}");
    }
}
