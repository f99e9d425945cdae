//! The structure of request bodies as data, and a walk over a body before anybody decodes it.
//!
//! Generated decoders reserve memory for as many elements as an array claims to have: fifteen bytes can ask for
//! hundreds of gigabytes, and the process aborts. The walk finds out first, without allocating, whether every length
//! is backed by bytes that are really there, and how much memory the decoded form will take. What passes it can be
//! decoded with no larger reservation than that. What fails it costs no backtrace and no allocation either.
//!
//! The walk may be stricter than the decoder (it is, about overlong varints and the sizes of tagged fields) but must
//! consume exactly the same bytes; the tests of the api table hold the two against each other.
//! Never: trust a count, recurse along the data (the depth is that of the shape).

use std::fmt;

use kafka_protocol::protocol::StrBytes;

/// Type of a field.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A boolean or an integer or a UUID: this many bytes.
    Fixed(usize),
    /// A string, nullable or not; compact in flexible versions.
    Text,
    /// Bytes or records, nullable or not; compact in flexible versions.
    Blob,
    /// Elements of a fixed size, as many bytes each.
    Numbers(usize),
    /// Strings; unlike structures they have no tagged section.
    Texts,
    /// Structures.
    Array(&'static Structure),
    /// A single structure.
    Inline(&'static Structure),
    /// A single structure behind a byte that says whether it is there (1).
    Optional(&'static Structure),
}

/// A field and the versions that have it.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    pub(super) kind: Kind,
    from: i16,
    to: i16,
    /// `None`: in its place. `Some`: in the tagged section, under this number.
    pub(super) tag: Option<u32>,
}

impl Field {
    /// In all versions.
    pub const fn new(kind: Kind) -> Self {
        Self { kind, from: 0, to: i16::MAX, tag: None }
    }

    /// Not before version `from`.
    #[must_use]
    pub const fn from(self, from: i16) -> Self {
        Self { from, ..self }
    }

    /// Not after version `to`.
    #[must_use]
    pub const fn to(self, to: i16) -> Self {
        Self { to, ..self }
    }

    /// In the tagged section.
    #[must_use]
    pub const fn tag(self, tag: u32) -> Self {
        Self { tag: Some(tag), ..self }
    }

    pub(super) fn exists(&self, version: i16) -> bool {
        self.from <= version && version <= self.to
    }
}

/// Fields in wire order, and what one decoded structure takes in memory apart from what its fields point to.
#[derive(Debug)]
pub struct Structure {
    pub fields: &'static [Field],
    pub memory: usize,
}

/// The body of a request.
#[derive(Debug)]
pub struct Message {
    /// First version with compact lengths and tagged fields.
    pub flexible_from: i16,
    pub body: Structure,
}

/// Why a body is not what its version says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// It ends before its structure does.
    Truncated,
    /// A length or count below −1, or a null where the walk can tell.
    NegativeLength(i64),
    /// A varint of more than 32 bits.
    Varint,
    /// A string longer than any may be.
    TextLength(usize),
    /// A known tagged field whose content does not have the declared size.
    TaggedSize(u32),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Truncated => f.write_str("the body ends too early, or a length in it is too large"),
            Malformed::NegativeLength(length) => write!(f, "length {length} is negative"),
            Malformed::Varint => f.write_str("a varint has more than 32 bits"),
            Malformed::TextLength(length) => {
                write!(f, "a string of {length} bytes is longer than {TEXT_MOST}")
            }
            Malformed::TaggedSize(tag) => write!(f, "tagged field {tag} does not have its declared size"),
        }
    }
}

/// What a body that passed the walk is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// Bytes of the body that belong to the message.
    pub length: usize,
    /// Upper estimate of what decoding allocates, in bytes, and of what answering takes for each element of a list.
    pub memory: usize,
}

impl Message {
    /// Walks over `body`.
    pub fn measure(&self, body: &[u8], version: i16) -> Result<Measured, Malformed> {
        let flexible = version >= self.flexible_from;
        let mut walk = Walk { rest: body, version, flexible, memory: 0 };
        walk.structure(&self.body)?;
        Ok(Measured { length: body.len() - walk.rest.len(), memory: walk.memory })
    }
}

/// What an answer takes for each number, name or structure of a list, its sentence included: four bytes of request may
/// ask about a partition each, and a list of them is charged for as what becomes of it.
const ANSWERED: usize = 256;
/// The longest string, also where its length could say more: versions that are not flexible could not carry it back.
/// Kafka's generated readers refuse the same.
const TEXT_MOST: usize = 0x7fff;
/// An unknown tagged field in a tree map: the entry, and the first one's leaf node.
const TAG_MEMORY: usize = 48;
const TAG_NODE_MEMORY: usize = 480;

struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
    memory: usize,
}

impl Walk<'_> {
    fn structure(&mut self, structure: &Structure) -> Result<(), Malformed> {
        for field in structure.fields {
            if field.tag.is_none() && field.exists(self.version) {
                self.value(field.kind)?;
            }
        }
        if self.flexible { self.tagged(structure) } else { Ok(()) }
    }

    fn value(&mut self, kind: Kind) -> Result<(), Malformed> {
        match kind {
            Kind::Fixed(size) => self.skip(size),
            Kind::Text => self.text(),
            Kind::Blob => {
                let length = self.length()?;
                self.skip(length)
            }
            Kind::Numbers(size) => {
                let count = self.length()?;
                self.memory = self.memory.saturating_add(count.saturating_mul(size + ANSWERED));
                self.skip(count.saturating_mul(size))
            }
            Kind::Texts => {
                let count = self.count()?;
                self.memory += count * (size_of::<StrBytes>() + ANSWERED);
                (0..count).try_for_each(|_| self.text())
            }
            Kind::Array(element) => {
                let count = self.count()?;
                self.memory += count * (element.memory + ANSWERED);
                (0..count).try_for_each(|_| self.structure(element))
            }
            Kind::Inline(structure) => self.structure(structure),
            Kind::Optional(structure) => match self.take::<1>()? {
                [1] => self.structure(structure),
                _ => Ok(()),
            },
        }
    }

    fn text(&mut self) -> Result<(), Malformed> {
        let length = if self.flexible { self.compact_length()? } else { self.short_length()? };
        if length > TEXT_MOST {
            return Err(Malformed::TextLength(length));
        }
        self.skip(length)
    }

    /// Length of an array. Every element takes a byte at least: a count beyond that is a lie and need not be walked.
    fn count(&mut self) -> Result<usize, Malformed> {
        let count = self.length()?;
        if count > self.rest.len() { Err(Malformed::Truncated) } else { Ok(count) }
    }

    fn tagged(&mut self, structure: &Structure) -> Result<(), Malformed> {
        let count = self.varint()?;
        for index in 0..count {
            let tag = self.varint()?;
            let size = self.varint()? as usize;
            let known =
                structure.fields.iter().find(|field| field.tag == Some(tag) && field.exists(self.version));
            match known {
                Some(field) => {
                    let before = self.rest.len();
                    self.value(field.kind)?;
                    if before - self.rest.len() != size {
                        return Err(Malformed::TaggedSize(tag));
                    }
                }
                None => {
                    self.memory += TAG_MEMORY + if index == 0 { TAG_NODE_MEMORY } else { 0 };
                    self.skip(size)?;
                }
            }
        }
        Ok(())
    }

    /// Length of an array or of bytes; null counts as empty.
    fn length(&mut self) -> Result<usize, Malformed> {
        if self.flexible { self.compact_length() } else { self.plain_length() }
    }

    fn compact_length(&mut self) -> Result<usize, Malformed> {
        Ok((self.varint()? as usize).saturating_sub(1))
    }

    fn plain_length(&mut self) -> Result<usize, Malformed> {
        let bytes = self.take::<4>()?;
        non_negative(i64::from(i32::from_be_bytes(bytes)))
    }

    fn short_length(&mut self) -> Result<usize, Malformed> {
        let bytes = self.take::<2>()?;
        non_negative(i64::from(i16::from_be_bytes(bytes)))
    }

    fn varint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0u64;
        for index in 0..5 {
            let [byte] = self.take::<1>()?;
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                return u32::try_from(value).map_err(|_| Malformed::Varint);
            }
        }
        Err(Malformed::Varint)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    fn skip(&mut self, count: usize) -> Result<(), Malformed> {
        self.rest = self.rest.get(count..).ok_or(Malformed::Truncated)?;
        Ok(())
    }
}

fn non_negative(length: i64) -> Result<usize, Malformed> {
    match length {
        -1 => Ok(0),
        0.. => Ok(usize::try_from(length).expect("a non-negative 32-bit length")),
        _ => Err(Malformed::NegativeLength(length)),
    }
}
