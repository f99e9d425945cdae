//! The frame that everything of the cluster metadata is stored in: magic with format version, length, CRC-32C, JSON.
//!
//! JSON because these files are small, rarely written and long-lived: a field can be added with a default, and a person
//! with a text viewer can see what a node believed. The version is in every frame: a file of a newer format is refused
//! by name, never half understood. Never: a frame accepted whose checksum does not fit.

use std::{fmt, io};

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};

/// The version that this program writes; it reads this and all older ones.
pub(super) const FORMAT: u8 = 1;

const MAGIC: [u8; 3] = *b"GCM";
const HEADER_LENGTH: usize = 12;

/// Why bytes are no frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BadFrame {
    /// Fewer bytes than a header, or than the header says.
    Short,
    /// Does not begin with the magic.
    Magic,
    /// Written by a newer program.
    Newer(u8),
    /// The checksum does not fit.
    Checksum,
}

impl fmt::Display for BadFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadFrame::Short => f.write_str("it ends too early"),
            BadFrame::Magic => f.write_str("it does not begin as a metadata file does"),
            BadFrame::Newer(format) => write!(
                f,
                "it has format {format}, this version of Gracchus reads up to {FORMAT}: use a newer version"
            ),
            BadFrame::Checksum => f.write_str("its checksum does not fit"),
        }
    }
}

/// Why a file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// A newer program wrote it, and nothing is wrong with it.
    Newer(BadFrame),
    /// It is not what was written.
    Damaged(String),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::Newer(bad) => bad.fmt(f),
            Unreadable::Damaged(problem) => f.write_str(problem),
        }
    }
}

impl std::error::Error for Unreadable {}

impl From<BadFrame> for Unreadable {
    fn from(bad: BadFrame) -> Self {
        match bad {
            BadFrame::Newer(_) => Unreadable::Newer(bad),
            BadFrame::Short | BadFrame::Magic | BadFrame::Checksum => Unreadable::Damaged(bad.to_string()),
        }
    }
}

impl From<serde_json::Error> for Unreadable {
    fn from(error: serde_json::Error) -> Self {
        Unreadable::Damaged(error.to_string())
    }
}

impl From<String> for Unreadable {
    fn from(problem: String) -> Self {
        Unreadable::Damaged(problem)
    }
}

impl From<&str> for Unreadable {
    fn from(problem: &str) -> Self {
        Unreadable::Damaged(problem.to_owned())
    }
}

/// Frames `value`.
pub(super) fn encode<T: Serialize>(value: &T) -> io::Result<Bytes> {
    let payload = serde_json::to_vec(value)?;
    let length = u32::try_from(payload.len()).map_err(|_| io::Error::other("metadata frame above 4 GiB"))?;
    let mut frame = BytesMut::with_capacity(HEADER_LENGTH + payload.len());
    frame.put_slice(&MAGIC);
    frame.put_u8(FORMAT);
    frame.put_u32_le(length);
    frame.put_u32_le(checksum(length, &payload));
    frame.put_slice(&payload);
    Ok(frame.freeze())
}

/// The payload of the frame that `bytes` begins with, and the length of the whole frame.
pub(super) fn split(bytes: &[u8]) -> Result<(&[u8], usize), BadFrame> {
    let header = bytes.get(..HEADER_LENGTH).ok_or(BadFrame::Short)?;
    if header[..3] != MAGIC {
        return Err(BadFrame::Magic);
    }
    if header[3] > FORMAT {
        return Err(BadFrame::Newer(header[3]));
    }
    let number = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let end = HEADER_LENGTH + number(4) as usize;
    let payload = bytes.get(HEADER_LENGTH..end).ok_or(BadFrame::Short)?;
    if checksum(number(4), payload) != number(8) {
        return Err(BadFrame::Checksum);
    }
    Ok((payload, end))
}

/// Reads a file that is one frame.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unreadable> {
    let (payload, end) = split(bytes)?;
    if end != bytes.len() {
        return Err("more follows its only frame".into());
    }
    Ok(serde_json::from_slice(payload)?)
}

/// Where the next whole frame begins behind the start of `bytes`, if there is one.
pub(super) fn find_behind(bytes: &[u8]) -> Option<usize> {
    (1..bytes.len()).find(|&at| bytes[at..].starts_with(&MAGIC) && split(&bytes[at..]).is_ok())
}

fn checksum(length: u32, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length.to_le_bytes()), payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_and_every_flipped_bit_is_noticed() {
        let frame = encode(&vec!["a topic", "another"]).unwrap();
        assert_eq!(decode::<Vec<String>>(&frame).unwrap(), ["a topic", "another"]);
        for length in 0..frame.len() {
            assert_eq!(split(&frame[..length]), Err(BadFrame::Short));
        }
        for bit in 0..frame.len() * 8 {
            let mut damaged = frame.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let read = split(&damaged);
            // The version bits below the current one would name an older format: nothing to be told apart by.
            assert!(read.is_err() || bit / 8 == 3 && damaged[3] < FORMAT, "bit {bit}");
        }
    }

    #[test]
    fn a_newer_format_is_named() {
        let mut frame = encode(&1).unwrap().to_vec();
        frame[3] = FORMAT + 1;
        assert_eq!(split(&frame), Err(BadFrame::Newer(FORMAT + 1)));
        let unreadable = decode::<i32>(&frame).unwrap_err();
        assert_eq!(unreadable, Unreadable::Newer(BadFrame::Newer(FORMAT + 1)));
        assert!(unreadable.to_string().contains("format 2"));
    }

    #[test]
    fn a_frame_behind_damage_is_found() {
        let mut bytes = encode(&1).unwrap().to_vec();
        let second = bytes.len();
        bytes.extend(encode(&2).unwrap());
        bytes[HEADER_LENGTH] ^= 1;
        assert_eq!(find_behind(&bytes), Some(second));
        assert_eq!(find_behind(&bytes[..second]), None);
    }
}
