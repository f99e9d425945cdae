//! Types of configurations: which values are legal, and their text form. Errors are Kafka's sentences, since tools show
//! them to people who search for them. Never: a value, a default.

use std::{collections::BTreeSet, ops::RangeInclusive};

/// The words of a list.
pub fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|word| !word.is_empty())
}

/// Kafka's `ConfigDef.Type` with the values that are legal.
#[derive(Debug, Clone, PartialEq)]
pub enum ConfigType {
    Boolean,
    Short(RangeInclusive<i64>),
    Int(RangeInclusive<i64>),
    Long(RangeInclusive<i64>),
    Double(RangeInclusive<f64>),
    /// One of these words; anything when empty.
    String(&'static [&'static str]),
    /// One of these words, in capitals or not.
    AnyCase(&'static [&'static str]),
    /// The name of a Java class.
    Class,
    /// A comma-separated list; of these words, or of anything when empty.
    List(&'static [&'static str]),
    /// A secret: never shown.
    Password,
    /// An int: −1, or 1 to 9.
    GzipLevel,
    /// A list of `partition:broker`, or `*`.
    ThrottledReplicas,
}

impl ConfigType {
    /// Kafka's number of the type on the wire.
    pub fn code(&self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::String(_) | Self::AnyCase(_) => 2,
            Self::Int(_) | Self::GzipLevel => 3,
            Self::Short(_) => 4,
            Self::Long(_) => 5,
            Self::Double(_) => 6,
            Self::List(_) | Self::ThrottledReplicas => 7,
            Self::Class => 8,
            Self::Password => 9,
        }
    }

    /// Whether words can be added and taken away.
    pub fn is_list(&self) -> bool {
        matches!(self, Self::List(_) | Self::ThrottledReplicas)
    }

    /// Whether values must not be shown.
    pub fn is_sensitive(&self) -> bool {
        matches!(self, Self::Password)
    }

    /// The whole numbers that are legal, where the type is such a number.
    pub fn range(&self) -> Option<RangeInclusive<i64>> {
        match self {
            Self::Short(range) | Self::Int(range) | Self::Long(range) => Some(range.clone()),
            Self::GzipLevel => Some(-1..=9),
            _ => None,
        }
    }

    /// Says why `value` of the key called `name` is not legal.
    pub fn validate(&self, name: &str, value: &str) -> Result<(), String> {
        let text = value.trim();
        let wrong =
            |value: &str, why: String| Err(format!("Invalid value {value} for configuration {name}: {why}"));
        let words = || words(text);
        let unknown = |words: &[&str]| format!("String must be one of: {}", words.join(", "));
        match self {
            Self::Boolean if is_boolean(text) => Ok(()),
            Self::Boolean => wrong(value, "Expected value to be either true or false".into()),
            Self::Short(range) => {
                whole(text, i16::MIN.into()..=i16::MAX.into(), range, "SHORT").or_else(|why| wrong(text, why))
            }
            Self::Int(range) => {
                whole(text, i32::MIN.into()..=i32::MAX.into(), range, "INT").or_else(|why| wrong(text, why))
            }
            Self::Long(range) => {
                whole(text, i64::MIN..=i64::MAX, range, "LONG").or_else(|why| wrong(text, why))
            }
            Self::Double(range) => match text.parse::<f64>() {
                Ok(number) if range.contains(&number) => Ok(()),
                Ok(number) if number > *range.end() => {
                    wrong(&format!("{number:?}"), format!("Value must be no more than {}", range.end()))
                }
                Ok(number) => {
                    wrong(&format!("{number:?}"), format!("Value must be at least {}", range.start()))
                }
                Err(_) => wrong(text, "Not a number of type DOUBLE".into()),
            },
            Self::String(legal) if legal.is_empty() || legal.contains(&text) => Ok(()),
            Self::String(legal) => wrong(value, unknown(legal)),
            Self::AnyCase(legal) if legal.iter().any(|word| word.eq_ignore_ascii_case(text)) => Ok(()),
            Self::AnyCase(legal) => {
                wrong(value, format!("String must be one of (case insensitive): {}", legal.join(", ")))
            }
            Self::Class if !text.is_empty() => Ok(()),
            Self::Class => wrong(text, "Class  could not be found.".into()),
            Self::List(_) if !text.is_empty() && text.split(',').any(|word| word.trim().is_empty()) => {
                Err(format!("Configuration '{name}' values must not be empty."))
            }
            Self::List(legal) => match words().find(|word| !legal.is_empty() && !legal.contains(word)) {
                Some(word) => wrong(word, unknown(legal)),
                None => Ok(()),
            },
            Self::Password => Ok(()),
            Self::GzipLevel => match text.parse() {
                Ok(-1 | 1..=9) => Ok(()),
                Ok(_) => wrong(text, "Value must be between 1 and 9 or equal to -1".into()),
                Err(_) => wrong(text, "Not a number of type INT".into()),
            },
            Self::ThrottledReplicas if text == "*" || words().all(is_replica) => Ok(()),
            Self::ThrottledReplicas => wrong(
                &format!("[{}]", words().collect::<Vec<_>>().join(", ")),
                format!(
                    "{name} must be the literal '*' or a list of replicas in the following format: \
                     [partitionId]:[brokerId],[partitionId]:[brokerId],..."
                ),
            ),
        }
    }

    /// The text form of a legal value: what Kafka shows after it has parsed it.
    pub fn normalized(&self, value: &str) -> String {
        let text = value.trim();
        match self {
            Self::Boolean => text.to_ascii_lowercase(),
            Self::Short(_) | Self::Int(_) | Self::Long(_) | Self::GzipLevel => {
                text.parse::<i64>().map_or_else(|_| text.to_owned(), |number| number.to_string())
            }
            Self::Double(_) => {
                text.parse::<f64>().map_or_else(|_| text.to_owned(), |number| format!("{number:?}"))
            }
            Self::List(_) | Self::ThrottledReplicas => {
                let mut seen = BTreeSet::new();
                words(text).filter(|word| seen.insert(*word)).collect::<Vec<_>>().join(",")
            }
            Self::String(_) | Self::AnyCase(_) | Self::Class | Self::Password => text.to_owned(),
        }
    }
}

fn is_boolean(text: &str) -> bool {
    text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false")
}

fn is_replica(word: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    word.split_once(':').is_some_and(|(partition, broker)| number(partition) && number(broker))
}

/// Why `text` is no whole number of a type that holds `all` and of which `legal` are legal.
fn whole(
    text: &str,
    all: RangeInclusive<i64>,
    legal: &RangeInclusive<i64>,
    name: &str,
) -> Result<(), String> {
    match text.parse::<i64>() {
        Ok(number) if legal.contains(&number) => Ok(()),
        Ok(number) if !all.contains(&number) => Err(format!("Not a number of type {name}")),
        Ok(number) if number < *legal.start() => Err(format!("Value must be at least {}", legal.start())),
        Ok(_) => Err(format!("Value must be no more than {}", legal.end())),
        Err(_) => Err(format!("Not a number of type {name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(kind: &ConfigType, value: &str) -> String {
        kind.validate("key", value).unwrap_err()
    }

    #[test]
    fn what_is_wrong_is_said_as_kafka_says_it() {
        let long = ConfigType::Long(-1..=i64::MAX);
        assert_eq!(wrong(&long, "abc"), "Invalid value abc for configuration key: Not a number of type LONG");
        assert_eq!(wrong(&long, "-2"), "Invalid value -2 for configuration key: Value must be at least -1");
        let int = ConfigType::Int(1..=17);
        assert!(wrong(&int, "99999999999").ends_with("Not a number of type INT"));
        assert!(wrong(&int, "18").ends_with("Value must be no more than 17"));
        assert!(wrong(&ConfigType::Double(0.0..=1.0), "2").ends_with("Value must be no more than 1"));
        assert!(wrong(&ConfigType::Boolean, "maybe").ends_with("Expected value to be either true or false"));
        let words = ConfigType::List(&["compact", "delete"]);
        assert_eq!(
            wrong(&words, "compact,shred"),
            "Invalid value shred for configuration key: String must be one of: compact, delete"
        );
        assert_eq!(wrong(&words, "compact,"), "Configuration 'key' values must not be empty.");
        assert_eq!(wrong(&words, ","), "Configuration 'key' values must not be empty.");
        assert!(wrong(&ConfigType::AnyCase(&["UPGRADE"]), "up").ends_with("(case insensitive): UPGRADE"));
        assert!(wrong(&ConfigType::Class, "").ends_with("could not be found."));
        assert!(wrong(&ConfigType::GzipLevel, "0").ends_with("between 1 and 9 or equal to -1"));
        assert!(wrong(&ConfigType::ThrottledReplicas, "0:1,x").starts_with("Invalid value [0:1, x] for"));
    }

    #[test]
    fn legal_values_have_one_text_form() {
        let same = |kind: ConfigType, value: &str, text: &str| {
            assert_eq!(kind.validate("key", value), Ok(()));
            assert_eq!(kind.normalized(value), text);
        };
        same(ConfigType::Boolean, " TRUE ", "true");
        same(ConfigType::Long(0..=100), " 077 ", "77");
        same(ConfigType::Double(0.0..=2.0), "1", "1.0");
        same(ConfigType::List(&["compact", "delete"]), " compact , delete,compact", "compact,delete");
        same(ConfigType::List(&["compact"]), "", "");
        same(ConfigType::ThrottledReplicas, "*", "*");
        same(ConfigType::ThrottledReplicas, "0:1,1:1", "0:1,1:1");
    }

    #[test]
    fn secrets_are_known_as_such() {
        assert!(ConfigType::Password.is_sensitive());
        assert!(!ConfigType::String(&[]).is_sensitive());
    }
}
