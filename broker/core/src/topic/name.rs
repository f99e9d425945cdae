//! Topic names (Kafka's `Topic` rules). Names become directory names and metric names, hence the limits.

/// The longest name: `-`, a partition number and suffixes of deleted directories must still fit into a file name.
pub(super) const MAX_LENGTH: usize = 249;

/// Says why `name` is not a legal topic name, in Kafka's words.
pub fn validate_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("the empty string is not allowed".into());
    }
    if name == "." || name == ".." {
        return Err(format!("'{name}' is not allowed"));
    }
    let shown = name.escape_debug();
    if name.len() > MAX_LENGTH {
        return Err(format!("the length of '{shown}' is longer than the max allowed length {MAX_LENGTH}"));
    }
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.bytes().all(legal) {
        return Ok(());
    }
    Err(format!("'{shown}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"))
}

/// Whether metrics could not tell the two apart: `.` and `_` are the same there.
pub fn collides(one: &str, other: &str) -> bool {
    one != other
        && one.len() == other.len()
        && one.bytes().zip(other.bytes()).all(|(a, b)| fold(a) == fold(b))
}

fn fold(byte: u8) -> u8 {
    if byte == b'.' { b'_' } else { byte }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legal_names_pass_and_others_say_why() {
        for name in ["a", "A.b_c-9", "__consumer_offsets", &"x".repeat(249)] {
            assert_eq!(validate_name(name), Ok(()), "{name}");
        }
        for name in ["", ".", "..", "a b", "ü", "a/b", "a\n", &"x".repeat(250)] {
            assert!(validate_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn dot_and_underscore_collide() {
        assert!(collides("a.b", "a_b"));
        assert!(!collides("a.b", "a.b"), "a name does not collide with itself");
        assert!(!collides("a.b", "a-b"));
    }
}
