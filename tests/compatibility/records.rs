//! The records that every client sends: real text, with all the ways in which something can be absent, in batches of many
//! and in one of almost a megabyte.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use gracchus_tests::places::real_texts;

/// Every topic has as many. Record n goes to partition n % 3.
pub(crate) const PARTITIONS: i32 = 3;
const COUNT: usize = 900;
const LARGE: usize = 900_000;

/// Records and the file that programs read them from.
#[derive(Debug)]
pub(crate) struct Records {
    pub(crate) file: PathBuf,
    lines: Vec<String>,
}

impl Records {
    /// `plain`: no header without a value and no two of one name, which some clients cannot express.
    pub(crate) fn new(file: &Path, plain: bool) -> Self {
        let texts = real_texts();
        let lines = texts
            .iter()
            .flat_map(|(name, text)| text.split(|&byte| byte == b'\n').map(move |line| (name, line)));
        let mut lines: Vec<String> = lines
            .take(COUNT)
            .enumerate()
            .map(|(number, (name, text))| small(number, name, text, plain))
            .collect();
        let large: Vec<u8> = texts.iter().flat_map(|(_, text)| text).copied().cycle().take(LARGE).collect();
        lines.push(format!("{}\t{}", hex(b"large"), hex(&large)));
        fs::write(file, lines.join("\n") + "\n").expect("a scratch file");
        Self { file: file.to_owned(), lines }
    }

    /// How many of them are in `partition`.
    pub(crate) fn count(&self, partition: i32) -> usize {
        self.of(partition).count()
    }

    /// What a client read from `topic` and left in `folder` must be what was sent.
    pub(crate) fn compare(&self, folder: &Path, topic: &str, partition: i32) -> Result<(), String> {
        let file = folder.join(format!("{topic}-{partition}"));
        let back = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let back: Vec<&str> = back.lines().collect();
        let sent: Vec<&str> = self.of(partition).collect();
        if back == sent {
            return Ok(());
        }
        let at = back.iter().zip(&sent).position(|(back, sent)| back != sent);
        let at = at.unwrap_or(back.len().min(sent.len()));
        let show = |lines: &[&str]| lines.get(at).map_or("nothing".to_owned(), |line| super::brief(line));
        Err(format!(
            "{topic}-{partition}: {} records of {}; record {at} is {} instead of {}",
            back.len(),
            sent.len(),
            show(&back),
            show(&sent)
        ))
    }

    fn of(&self, partition: i32) -> impl Iterator<Item = &str> {
        self.lines.iter().skip(partition as usize).step_by(PARTITIONS as usize).map(String::as_str)
    }
}

fn small(number: usize, name: &str, text: &[u8], plain: bool) -> String {
    let key = (!number.is_multiple_of(3)).then(|| format!("{name}:{number}").into_bytes());
    // One client refuses records with neither key nor value.
    let value = (number % 11 != 5 || key.is_none()).then(|| text.to_vec());
    let mut line = format!("{}\t{}", field(key.as_deref()), field(value.as_deref()));
    for index in 0..number % 4 {
        let name = if plain { format!("line-{index}") } else { format!("line-{}", index % 2) };
        let value = (plain || index != 1).then(|| number.to_string().into_bytes());
        let _ = write!(line, "\t{}={}", hex(name.as_bytes()), field(value.as_deref()));
    }
    line
}

/// A field of a line.
pub(crate) fn field(bytes: Option<&[u8]>) -> String {
    bytes.map_or("null".to_owned(), hex)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes of a field.
pub(crate) fn unhex(field: &str) -> Option<Vec<u8>> {
    let byte = |at: usize| u8::from_str_radix(&field[at..at + 2], 16).expect("hexadecimal");
    (field != "null").then(|| (0..field.len()).step_by(2).map(byte).collect())
}
