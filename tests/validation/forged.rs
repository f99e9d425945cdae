//! Batches put together by hand, right and wrong, with a CRC that is right unless it is the point.
//!
//! Each case says what is unlike Apache Kafka, if anything is: there we refuse what it takes.

use std::io::Write;

use bytes::{BufMut, Bytes, BytesMut};

pub(crate) const NONE: i16 = 0;
pub(crate) const GZIP: i16 = 1;
pub(crate) const SNAPPY: i16 = 2;
pub(crate) const LZ4: i16 = 3;
pub(crate) const ZSTD: i16 = 4;
const LOG_APPEND_TIME: i16 = 8;
const TRANSACTIONAL: i16 = 16;
const CONTROL: i16 = 32;
const HEADER: usize = 61;
const HOUR: i64 = 3_600_000;

/// A batch to be sent to both brokers.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) batch: Bytes,
    /// Why ours answers something else.
    pub(crate) unlike: Option<&'static str>,
}

/// The header of a batch of two records, as it should be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub(crate) attributes: i16,
    pub(crate) last_offset_delta: i32,
    pub(crate) base_timestamp: i64,
    pub(crate) max_timestamp: i64,
    pub(crate) producer: (i64, i16, i32),
    pub(crate) count: i32,
}

impl Header {
    pub(crate) fn of(count: i32, now: i64) -> Self {
        Self {
            attributes: 0,
            last_offset_delta: count - 1,
            base_timestamp: now,
            max_timestamp: now,
            producer: (-1, -1, -1),
            count,
        }
    }

    pub(crate) fn around(self, payload: &[u8]) -> Bytes {
        let mut out = BytesMut::new();
        out.put_i64(0);
        out.put_i32((HEADER - 12 + payload.len()) as i32);
        out.put_i32(-1);
        out.put_i8(2);
        out.put_u32(0);
        out.put_i16(self.attributes);
        out.put_i32(self.last_offset_delta);
        out.put_i64(self.base_timestamp);
        out.put_i64(self.max_timestamp);
        out.put_i64(self.producer.0);
        out.put_i16(self.producer.1);
        out.put_i32(self.producer.2);
        out.put_i32(self.count);
        out.extend_from_slice(payload);
        let crc = crc32c::crc32c(&out[21..]);
        out[17..21].copy_from_slice(&crc.to_be_bytes());
        out.freeze()
    }
}

fn varint(value: i64) -> Vec<u8> {
    let mut bits = (value << 1 ^ value >> 63) as u64;
    let mut out = Vec::new();
    while bits >= 0x80 {
        out.push(bits as u8 | 0x80);
        bits >>= 7;
    }
    out.push(bits as u8);
    out
}

fn field(bytes: &[u8]) -> Vec<u8> {
    [&varint(bytes.len() as i64)[..], bytes].concat()
}

/// A record of parts that may be wrong.
fn put_together(parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&varint(body.len() as i64)[..], &body].concat()
}

/// A record as it should be.
pub(crate) fn record(offset_delta: i64, timestamp_delta: i64) -> Vec<u8> {
    let (timestamp, offset) = (varint(timestamp_delta), varint(offset_delta));
    put_together(&[&[0], &timestamp, &offset, &field(b"key"), &field(b"value"), &[0]])
}

pub(crate) fn pack(codec: i16, plain: &[u8]) -> Vec<u8> {
    const MEMORY: &str = "memory takes all";
    match codec {
        NONE => plain.to_vec(),
        GZIP => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(plain).expect(MEMORY);
            encoder.finish().expect(MEMORY)
        }
        SNAPPY => snap::raw::Encoder::new().compress_vec(plain).expect(MEMORY),
        LZ4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(plain).expect(MEMORY);
            encoder.finish().expect(MEMORY)
        }
        _ => zstd::encode_all(plain, 3).expect(MEMORY),
    }
}

/// The batch without its codec, so that it can be read without one.
pub(crate) fn unpacked(batch: &[u8]) -> Bytes {
    let payload = &batch[HEADER..];
    let mut plain = Vec::new();
    let read = match i16::from(batch[22] & 7) {
        NONE => std::io::Read::read_to_end(&mut &payload[..], &mut plain),
        GZIP => std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(payload), &mut plain),
        SNAPPY => {
            plain = snap::raw::Decoder::new().decompress_vec(payload).expect("snappy");
            Ok(plain.len())
        }
        LZ4 => std::io::Read::read_to_end(&mut lz4_flex::frame::FrameDecoder::new(payload), &mut plain),
        _ => zstd::stream::copy_decode(payload, &mut plain).map(|()| plain.len()),
    };
    read.expect("what was accepted can be unpacked");
    let mut out = BytesMut::from(&batch[..HEADER]);
    out[8..12].copy_from_slice(&((HEADER - 12 + plain.len()) as i32).to_be_bytes());
    out[22] &= !7;
    out.extend_from_slice(&plain);
    let crc = crc32c::crc32c(&out[21..]);
    out[17..21].copy_from_slice(&crc.to_be_bytes());
    out.freeze()
}

const CODECS: [(&str, i16); 5] =
    [("none", NONE), ("gzip", GZIP), ("snappy", SNAPPY), ("lz4", LZ4), ("zstd", ZSTD)];

/// All of them; `now` is about the brokers' time.
pub(crate) fn cases(now: i64) -> Vec<Case> {
    let mut cases = Cases { now, list: Vec::new() };
    cases.contents();
    cases.frames();
    cases.headers();
    cases.list
}

struct Cases {
    now: i64,
    list: Vec<Case>,
}

impl Cases {
    fn add(&mut self, name: impl Into<String>, batch: Bytes, unlike: Option<&'static str>) {
        self.list.push(Case { name: name.into(), batch, unlike });
    }

    /// What is inside, in every codec.
    fn contents(&mut self) {
        const OFFSETS: &str = "taken as it is without a codec; with one an exception";
        const LENGTH: &str = "with a codec the record's own length is not looked at";
        const EXCESS: &str = "surplus bits are dropped";
        const NULL: &str = "every negative length is null there, but not to every consumer";
        const GARBAGE: &str = "without a codec a length of too many bytes is an exception of another kind";
        let head: &[u8] = &[0, 0, 0];
        let (key, value) = (field(b"key"), field(b"value"));
        let with = |tail: &[u8]| put_together(&[head, &key, &value, tail]);
        let good = record(0, 0);
        let pair = [record(0, 0), record(1, 0)].concat();
        let places = |first: i64, second: i64| [record(first, 0), record(second, 0)].concat();
        let resized = |by: i8| [&[good[0].wrapping_add_signed(by)], &good[1..]].concat();
        let one: Vec<(&str, i32, Vec<u8>, Option<&str>)> = vec![
            ("as it should be", 2, pair.clone(), None),
            ("one record less than said", 3, pair.clone(), None),
            ("one record more than said", 1, pair.clone(), None),
            ("no record", 2, vec![], None),
            ("garbage", 2, [0xde, 0xad, 0xbe, 0xef].repeat(8), Some(GARBAGE)),
            ("zeros", 2, vec![0; 32], None),
            ("bytes behind", 2, [&pair[..], b"xyz"].concat(), None),
            ("a cut record", 2, pair[..pair.len() - 3].to_vec(), None),
            ("a null header key", 1, with(&[&[2, 1][..], &value].concat()), None),
            ("a negative number of headers", 1, with(&[1]), None),
            ("too many headers", 1, with(&varint(1000)), None),
            ("bytes behind the headers", 1, with(&[0, 0, 0]), None),
            ("a key longer than the record", 1, put_together(&[head, &varint(500), &value, &[0]]), None),
            ("a key of length -2", 1, put_together(&[head, &varint(-2), &value, &[0]]), Some(NULL)),
            ("attributes", 1, put_together(&[&[1, 0, 0], &key, &value, &[0]]), None),
            ("a negative length", 1, [&[1], &good[1..]].concat(), Some(LENGTH)),
            ("too short a length", 1, resized(-4), Some(LENGTH)),
            ("too long a length", 1, resized(20), Some(LENGTH)),
            ("offsets 0 and 0", 2, places(0, 0), Some(OFFSETS)),
            ("offsets 1 and 2", 2, places(1, 2), Some(OFFSETS)),
            ("offsets 0 and 5", 2, places(0, 5), Some(OFFSETS)),
            ("offsets 0 and -1", 2, places(0, -1), Some(OFFSETS)),
            ("an offset of 6 bytes", 1, put_together(&[&[0, 0], &[0x80; 5], &[1], &key, &value, &[0]]), None),
            (
                "an offset of 35 bits",
                1,
                put_together(&[&[0, 0], &[0x80; 4], &[0x70], &key, &value, &[0]]),
                Some(EXCESS),
            ),
            (
                "a timestamp of 11 bytes",
                1,
                put_together(&[&[0], &[0x80; 10], &[1, 0], &key, &value, &[0]]),
                None,
            ),
        ];
        for (codec, attributes) in CODECS {
            for (name, count, contents, unlike) in &one {
                let header = Header { attributes, ..Header::of(*count, self.now) };
                let batch = header.around(&pack(attributes, contents));
                self.add(format!("{codec}: {name}"), batch, *unlike);
            }
        }
    }

    /// What is around it.
    fn frames(&mut self) {
        const BEHIND: &str = "what stands behind a frame is passed over";
        let pair = [record(0, 0), record(1, 0)].concat();
        for (codec, attributes) in &CODECS[1..] {
            let header = Header { attributes: *attributes, ..Header::of(2, self.now) };
            let packed = pack(*attributes, &pair);
            self.add(format!("{codec} in {codec}"), header.around(&pack(*attributes, &packed)), None);
            for cut in [1, 4, packed.len() / 2] {
                let batch = header.around(&packed[..packed.len() - cut]);
                self.add(format!("{codec}, {cut} bytes short"), batch, None);
            }
            let unlike = [GZIP, LZ4].contains(attributes).then_some(BEHIND);
            let longer = header.around(&[&packed[..], b"xyz"].concat());
            self.add(format!("bytes behind {codec}"), longer, unlike);
            let mut torn = packed.clone();
            torn[0] ^= 0xff;
            self.add(format!("{codec}, its first byte changed"), header.around(&torn), None);
            self.add(format!("nothing as {codec}"), header.around(&pair), None);
            let plain = Header { attributes: 0, ..header }.around(&packed);
            self.add(format!("{codec} as nothing"), plain, None);
        }
        for attributes in [5, 6, 7] {
            let header = Header { attributes, ..Header::of(2, self.now) };
            self.add(format!("codec {attributes}"), header.around(&pair), None);
        }
    }

    /// What the header says.
    fn headers(&mut self) {
        const ID: &str = "TRANSACTIONAL_ID_AUTHORIZATION_FAILED, whoever asks: nobody forbade anything";
        const NEGATIVE: &str = "to repack it is an exception";
        const EPOCH: &str = "an epoch of -1 is taken from a producer with an id";
        const WRAPS: &str = "a timestamp that overflows wraps around";
        let now = self.now;
        let pair = [record(0, 0), record(1, 0)].concat();
        let right = Header::of(2, now);
        let mut add = |name: &str, change: &dyn Fn(&mut Header), unlike| {
            let mut header = right;
            change(&mut header);
            self.add(name, header.around(&pair), unlike);
        };
        add("largest timestamp -1", &|it| it.max_timestamp = -1, None);
        add("largest timestamp too large", &|it| it.max_timestamp = now + 10 * HOUR, None);
        add("largest timestamp too small", &|it| it.max_timestamp = now - HOUR, None);
        add("all timestamps -1", &|it| (it.base_timestamp, it.max_timestamp) = (-1, -1), None);
        add("all timestamps -2", &|it| (it.base_timestamp, it.max_timestamp) = (-2, -2), Some(NEGATIVE));
        add("all timestamps the least", &|it| it.base_timestamp = i64::MIN, None);
        add("all timestamps the greatest", &|it| it.base_timestamp = i64::MAX, None);
        add("all timestamps in the future", &|it| it.base_timestamp = now + 10 * HOUR, None);
        add("LogAppendTime", &|it| it.attributes = LOG_APPEND_TIME, None);
        add("LogAppendTime of -1", &|it| (it.attributes, it.max_timestamp) = (LOG_APPEND_TIME, -1), None);
        add(
            "LogAppendTime in the future",
            &|it| (it.attributes, it.max_timestamp) = (LOG_APPEND_TIME, now + 10 * HOUR),
            None,
        );
        add("transactional without an id", &|it| it.attributes = TRANSACTIONAL, Some(ID));
        add(
            "transactional, with a producer",
            &|it| (it.attributes, it.producer) = (TRANSACTIONAL, (5, 0, 0)),
            Some(ID),
        );
        add("control records", &|it| it.attributes = CONTROL, None);
        add("a producer without a sequence", &|it| it.producer = (5, 0, -1), None);
        add("a producer without an epoch", &|it| it.producer = (5, -1, 0), Some(EPOCH));
        add("attribute bit 7", &|it| it.attributes = 128, None);
        add("last offset delta 5 of two", &|it| it.last_offset_delta = 5, None);
        add("count 0", &|it| (it.last_offset_delta, it.count) = (-1, 0), None);
        let overflow = |base: i64, delta: i64| {
            let header = Header { base_timestamp: base, ..Header::of(1, now) };
            header.around(&record(0, delta))
        };
        self.add("a timestamp delta that overflows", overflow(now, i64::MAX), Some(WRAPS));
        self.add("the least timestamp less as much", overflow(i64::MIN, i64::MIN), Some(WRAPS));
        let hidden = Header { max_timestamp: -1, ..Header::of(1, now) };
        self.add("the future behind -1", hidden.around(&record(0, 10 * HOUR)), None);
        let good = right.around(&pair);
        let edit = |at: usize, bytes: &[u8]| {
            let mut batch = BytesMut::from(&good[..]);
            batch[at..at + bytes.len()].copy_from_slice(bytes);
            batch.freeze()
        };
        self.add("base offset 7", edit(0, &7i64.to_be_bytes()), None);
        self.add("magic 1", edit(16, &[1]), None);
        self.add("magic 3", edit(16, &[3]), None);
        self.add("a wrong CRC", edit(good.len() - 1, &[0x55]), None);
        self.add("a length of 10", edit(8, &10i32.to_be_bytes()), None);
        self.add("a byte short", good.slice(..good.len() - 1), None);
        self.add("no bytes", Bytes::new(), None);
        self.add("two batches", [&good[..], &good[..]].concat().into(), None);
    }
}
