//! Bodies made of their shape alone, for the fuzz targets (`tests/fuzz`) and the tests of the api table.
//!
//! A shape that a decoder disagrees with is found this way for every API in the table, also for the newest one. The
//! broker itself never comes through here. Never: knowledge of a single API.

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    Api,
    shape::{Kind, Structure},
};

/// A request body of `version` in which every array has `count` elements, every text and blob `count` bytes, and every
/// tagged field that exists is present.
pub fn sample(api: &Api, version: i16, count: usize) -> Bytes {
    let shape = api.shape;
    let mut sample =
        Sample { out: BytesMut::new(), version, flexible: version >= shape.flexible_from, count };
    sample.structure(&shape.body);
    sample.out.freeze()
}

/// Version of the request header that goes with `version` of the body.
pub fn header_version(api: &Api, version: i16) -> i16 {
    if version >= api.shape.flexible_from { 2 } else { 1 }
}

struct Sample {
    out: BytesMut,
    version: i16,
    flexible: bool,
    count: usize,
}

impl Sample {
    fn structure(&mut self, structure: &Structure) {
        for field in structure.fields {
            if field.tag.is_none() && field.exists(self.version) {
                self.value(field.kind);
            }
        }
        if self.flexible {
            let tagged = || structure.fields.iter().filter(|field| field.exists(self.version));
            let mut tagged: Vec<_> = tagged().filter_map(|field| Some((field.tag?, field.kind))).collect();
            tagged.sort_by_key(|(tag, _)| *tag);
            self.varint(tagged.len());
            for (tag, kind) in tagged {
                let (version, flexible, count) = (self.version, self.flexible, self.count);
                let mut inner = Sample { out: BytesMut::new(), version, flexible, count };
                inner.value(kind);
                self.varint(tag as usize);
                self.varint(inner.out.len());
                self.out.extend_from_slice(&inner.out);
            }
        }
    }

    fn value(&mut self, kind: Kind) {
        match kind {
            // One: neither the absent nor the default value of most fields.
            Kind::Fixed(size) => self.number(size),
            Kind::Text => self.text(),
            Kind::Blob => {
                self.length();
                self.out.put_bytes(b'b', self.count);
            }
            Kind::Numbers(size) => {
                self.length();
                (0..self.count).for_each(|_| self.number(size));
            }
            Kind::Texts => {
                self.length();
                (0..self.count).for_each(|_| self.text());
            }
            Kind::Array(element) => {
                self.length();
                (0..self.count).for_each(|_| self.structure(element));
            }
            Kind::Inline(structure) => self.structure(structure),
            Kind::Optional(structure) => {
                self.number(1);
                self.structure(structure);
            }
        }
    }

    fn number(&mut self, size: usize) {
        self.out.put_bytes(0, size - 1);
        self.out.put_u8(1);
    }

    fn text(&mut self) {
        if self.flexible {
            self.varint(self.count + 1);
        } else {
            self.out.put_i16(i16::try_from(self.count).expect("samples are small"));
        }
        self.out.put_bytes(b'a', self.count);
    }

    fn length(&mut self) {
        if self.flexible {
            self.varint(self.count + 1);
        } else {
            self.out.put_i32(i32::try_from(self.count).expect("samples are small"));
        }
    }

    fn varint(&mut self, value: usize) {
        let mut rest = value;
        while rest >= 0x80 {
            self.out.put_u8(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.out.put_u8(rest as u8);
    }
}
