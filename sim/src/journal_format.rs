//! The journal of a log directory, read by a parser that shares nothing with the broker's.
//!
//! A part begins with a sector that names its lap and its alignment; from the first aligned offset on it holds groups, each
//! with its lap, its sequence number, a table of entries and the bytes that these write. A group of another lap is void.
//! What counts is the chain: groups in sequence, from the oldest on, none missing.
//!
//! Never: a type or a constant of the broker.

use std::collections::BTreeMap;

/// A sound group of a journal's part.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group {
    pub(crate) offset: usize,
    pub(crate) length: usize,
    pub(crate) sequence: u64,
    /// All groups before this sequence were on disk when it was made.
    pub(crate) synced: u64,
    /// Where the next one goes.
    pub(crate) behind: usize,
}

/// A part of a journal.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// Where its first group goes.
    pub(crate) first: usize,
    /// The sound groups of its lap, wherever they are.
    pub(crate) groups: Vec<Group>,
}

/// A partition's log, as the journal names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Whose {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) topic_id: u128,
}

/// What a group says about one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// These bytes go to a position of the segment with this base offset.
    Write { base: i64, position: u64, bytes: Vec<u8> },
    /// Everything earlier from there on is void, in later segments too.
    Forget { base: i64, position: u64 },
}

fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let field = bytes.get(at..at + size)?;
    Some(field.iter().rev().fold(0u64, |all, byte| all << 8 | u64::from(*byte)))
}

/// Lap and alignment of a part; `None` if it is no part.
fn header(bytes: &[u8]) -> Option<(u64, usize)> {
    let sound =
        bytes.get(..4)? == b"GJP1" && number(bytes, 4, 4)? == u64::from(crc32c::crc32c(bytes.get(8..24)?));
    if !sound {
        return None;
    }
    Some((number(bytes, 8, 8)?, usize::try_from(number(bytes, 16, 8)?).ok()?.max(1)))
}

/// The sound groups of a part's lap; `None` if it is no part.
pub(crate) fn part(bytes: &[u8]) -> Option<Part> {
    let (lap, alignment) = header(bytes)?;
    let group = |offset: usize| {
        if bytes.get(offset..offset + 4)? != b"GJG2" || number(bytes, offset + 8, 8)? != lap {
            return None;
        }
        let length = number(bytes, offset + 32, 4)? as usize;
        let whole = bytes.get(offset..offset + length).filter(|whole| whole.len() >= 44)?;
        let sound = number(bytes, offset + 4, 4)? == u64::from(crc32c::crc32c(&whole[8..]));
        let (sequence, synced) = (number(bytes, offset + 16, 8)?, number(bytes, offset + 24, 8)?);
        let behind = offset + length.next_multiple_of(alignment);
        sound.then_some(Group { offset, length, sequence, synced, behind })
    };
    let (mut groups, mut offset) = (Vec::new(), alignment);
    while offset < bytes.len() {
        match group(offset) {
            Some(next) => {
                offset = next.behind;
                groups.push(next);
            }
            None => offset += alignment,
        }
    }
    Some(Part { first: alignment, groups })
}

/// What `group` of a part says about the log of `whose`, in order; `None` if its table is none.
pub(crate) fn entries(part: &[u8], group: &Group, whose: &Whose) -> Option<Vec<Entry>> {
    let bytes = part.get(group.offset..group.offset + group.length)?;
    let (table, count) = (number(bytes, 36, 4)? as usize, number(bytes, 40, 4)?);
    let (mut at, mut payload) = (44, 44 + table);
    let mut found = Vec::new();
    for _ in 0..count {
        let kind = *bytes.get(at)?;
        let name = number(bytes, at + 1, 2)? as usize;
        let topic = bytes.get(at + 3..at + 3 + name)?;
        at += 3 + name;
        let partition = number(bytes, at, 4)? as u32 as i32;
        let topic_id = u128::from(number(bytes, at + 12, 8)?) << 64 | u128::from(number(bytes, at + 4, 8)?);
        let (base, position) = (number(bytes, at + 20, 8)? as i64, number(bytes, at + 28, 8)?);
        at += 36;
        let ours = (topic, partition, topic_id) == (whose.topic.as_bytes(), whose.partition, whose.topic_id);
        let entry = match kind {
            1 => {
                let length = number(bytes, at, 4)? as usize;
                at += 4;
                let written = bytes.get(payload..payload + length)?;
                payload += length;
                ours.then(|| Entry::Write { base, position, bytes: written.to_vec() })
            }
            2 => ours.then_some(Entry::Forget { base, position }),
            _ => return None,
        };
        found.extend(entry);
    }
    (at == 44 + table && payload == bytes.len()).then_some(found)
}

/// The groups that count, in order, each with the key of its part. `Err`: the group of this sequence is missing, though
/// another one says that it had been on disk.
pub(crate) fn chain<K: Ord + Copy>(parts: &BTreeMap<K, Part>) -> Result<Vec<(K, &Group)>, u64> {
    let mut by_age: Vec<(K, &Part)> = parts.iter().map(|(key, part)| (*key, part)).collect();
    by_age.retain(|(_, part)| !part.groups.is_empty());
    by_age.sort_by_key(|(_, part)| part.groups[0].sequence);
    let mut counting: Vec<(K, &Group)> = Vec::new();
    let Some((_, oldest)) = by_age.first() else { return Ok(counting) };
    let first = oldest.groups[0];
    let mut next =
        if first.offset == oldest.first { first.sequence } else { first.sequence.saturating_sub(1) };
    for (key, part) in by_age {
        let mut offset = part.first;
        if (part.groups[0].sequence, part.groups[0].offset) != (next, offset) {
            break;
        }
        for group in &part.groups {
            if (group.sequence, group.offset) != (next, offset) {
                break;
            }
            offset = group.behind;
            next += 1;
            counting.push((key, group));
        }
    }
    let proven = parts.values().flat_map(|part| &part.groups).map(|group| group.synced).max().unwrap_or(0);
    if next < proven { Err(next) } else { Ok(counting) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALIGNMENT: usize = 512;

    fn checked(bytes: &mut [u8]) {
        let crc = crc32c::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    }

    fn a_part(lap: u64, groups: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = b"GJP1____".to_vec();
        bytes.extend(lap.to_le_bytes());
        bytes.extend((ALIGNMENT as u64).to_le_bytes());
        checked(&mut bytes);
        for group in groups {
            bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
            bytes.extend(group);
        }
        bytes.resize(8 * ALIGNMENT, 0);
        bytes
    }

    /// A group that writes `payload` for log `t-3` and cuts it behind.
    fn a_group(lap: u64, sequence: u64, synced: u64, payload: &[u8]) -> Vec<u8> {
        let entry = |kind: u8, position: u64| {
            let mut entry = vec![kind, 1, 0, b't'];
            entry.extend(3i32.to_le_bytes());
            entry.extend(7u128.to_le_bytes());
            entry.extend(40i64.to_le_bytes());
            entry.extend(position.to_le_bytes());
            entry
        };
        let mut table = entry(1, 100);
        table.extend((payload.len() as u32).to_le_bytes());
        table.extend(entry(2, 100 + payload.len() as u64));
        let mut bytes = b"GJG2____".to_vec();
        for number in [lap, sequence, synced] {
            bytes.extend(number.to_le_bytes());
        }
        for number in [44 + table.len() + payload.len(), table.len(), 2] {
            bytes.extend((number as u32).to_le_bytes());
        }
        bytes.extend(table);
        bytes.extend(payload);
        checked(&mut bytes);
        bytes
    }

    fn sequences(parts: &[Vec<u8>]) -> Result<Vec<u64>, u64> {
        let parts = parts.iter().enumerate().filter_map(|(key, bytes)| Some((key, part(bytes)?))).collect();
        chain(&parts).map(|chain| chain.into_iter().map(|(_, group)| group.sequence).collect())
    }

    #[test]
    fn a_group_says_what_it_writes_and_where_it_cuts() {
        let bytes = a_part(5, &[a_group(5, 1, 0, b"records")]);
        let group = part(&bytes).expect("it is a part").groups[0];
        let whose = Whose { topic: "t".into(), partition: 3, topic_id: 7 };
        let written = Entry::Write { base: 40, position: 100, bytes: b"records".to_vec() };
        let cut = Entry::Forget { base: 40, position: 107 };
        assert_eq!(entries(&bytes, &group, &whose), Some(vec![written, cut]));
        let other = Whose { topic_id: 8, ..whose };
        assert_eq!(entries(&bytes, &group, &other), Some(Vec::new()));
    }

    #[test]
    fn what_counts_ends_where_a_group_is_missing() {
        let whole = a_part(5, &[a_group(5, 8, 8, b"a"), a_group(5, 9, 9, b"b")]);
        let next = a_part(6, &[a_group(6, 10, 9, b"c")]);
        assert_eq!(sequences(&[next.clone(), whole.clone()]), Ok(vec![8, 9, 10]));
        let mut torn = whole.clone();
        torn[2 * ALIGNMENT + 50] ^= 1;
        assert_eq!(sequences(&[torn.clone(), next]), Ok(vec![8]), "the group behind it was under way, too");
        let proof = a_part(6, &[a_group(6, 10, 10, b"c")]);
        assert_eq!(sequences(&[torn, proof]), Err(9));
        let older_lap = a_part(5, &[a_group(5, 8, 8, b"a"), a_group(4, 9, 9, b"b")]);
        assert_eq!(sequences(&[older_lap]), Ok(vec![8]));
        let mut headless = whole;
        headless[ALIGNMENT] ^= 1;
        assert_eq!(
            sequences(&[headless]),
            Err(8),
            "the first one is torn, the second says that it was there"
        );
        assert_eq!(sequences(&[vec![0; 4096]]), Ok(Vec::new()));
    }
}
