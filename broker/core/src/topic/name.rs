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

/// What metrics call a topic: `.` and `_` are the same there, so two topics of one metric name collide.
pub fn metric_name(name: &str) -> String {
    name.replace('.', "_")
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
        assert_eq!(metric_name("a.b"), metric_name("a_b"));
        assert_ne!(metric_name("a.b"), metric_name("a-b"));
    }
}
