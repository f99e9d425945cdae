//! Entries of the fault budget: what one disk can do to records that a contract cannot survive, by name.
//!
//! The contract of acknowledgement: what is acknowledged is on the disk of every replica that counts. Of a partition with one
//! replica that is one disk, and what happens to it beyond the contract is either withheld, or what is missing then is
//! excused. Another replica's disk has what one has lost: there no entry holds, nothing is withheld, and nothing excused.
//!
//! Never: an excuse that names no entry; one that does not look at the number of replicas.

/// What is withheld, or excuses what is missing, where one disk alone keeps a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entry {
    /// Withheld: damage to a file that holds what is nowhere else.
    OnlyCopy,
    /// Withheld: damage to the end of a journal or a log that nobody can tell from an append that power interrupted.
    TornEnd,
    /// Withheld: damage to both of two files each of which proves what is missing in the other.
    LastWitness,
    /// Excused: a file in which a bit has flipped since it was written, before anybody has had to notice.
    FlippedBit,
    /// Excused: closed segments that were damaged, of which the broker says that they are.
    ClosedSegments,
    /// Excused: an operator has started a broker without what was damaged, and the broker says what that is.
    AcceptedDamage,
    /// Excused: what a topic leaves to the operating system, when the power fails.
    LeftToTheSystem,
}

impl Entry {
    /// All of them.
    pub const ALL: [Entry; 7] = [
        Entry::OnlyCopy,
        Entry::TornEnd,
        Entry::LastWitness,
        Entry::FlippedBit,
        Entry::ClosedSegments,
        Entry::AcceptedDamage,
        Entry::LeftToTheSystem,
    ];

    /// As a story tells it.
    pub fn name(self) -> &'static str {
        match self {
            Entry::OnlyCopy => "the only copy",
            Entry::TornEnd => "a torn end",
            Entry::LastWitness => "the last witness",
            Entry::FlippedBit => "a flipped bit",
            Entry::ClosedSegments => "closed segments",
            Entry::AcceptedDamage => "accepted damage",
            Entry::LeftToTheSystem => "left to the system",
        }
    }

    /// Whether it counts for a partition with so many replicas: not for one that another disk keeps, too.
    pub fn holds(self, replicas: i16) -> bool {
        replicas <= 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_disk_is_an_excuse_where_another_has_the_same() {
        for entry in Entry::ALL {
            assert!(entry.holds(1) && !entry.holds(2), "{}", entry.name());
        }
    }
}
