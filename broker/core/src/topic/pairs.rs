//! A topic's configuration and its texts: whatever is legal means the same when it is written out and read again.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{ConfigKey, ConfigType, KEYS, TopicConfig};

/// A legal value of `key`, in one of the ways to write it.
fn value(key: &'static ConfigKey) -> BoxedStrategy<String> {
    let words = |words: &'static [&'static str]| prop::sample::select(words.to_vec());
    if let Some(range) = key.kind.range() {
        let legal = move |number: &i64| !(matches!(key.kind, ConfigType::GzipLevel) && *number == 0);
        return (range, any::<bool>())
            .prop_filter("there is no level 0", move |(number, _)| legal(number))
            .prop_map(|(number, spaced)| if spaced { format!(" {number:+} ") } else { number.to_string() })
            .boxed();
    }
    match &key.kind {
        ConfigType::Boolean => {
            prop::sample::select(vec!["true", "false", "TRUE", "False "]).prop_map_into().boxed()
        }
        ConfigType::Double(range) => range.clone().prop_map(|number| number.to_string()).boxed(),
        ConfigType::String(legal) if !legal.is_empty() => words(legal).prop_map_into().boxed(),
        ConfigType::List(legal) if !legal.is_empty() => {
            prop::collection::vec(words(legal), 1..4).prop_map(|words| words.join(", ")).boxed()
        }
        ConfigType::ThrottledReplicas => {
            prop::sample::select(vec!["*", "", "0:1", "0:1, 1:2,0:1"]).prop_map_into().boxed()
        }
        _ => Just(String::new()).boxed(),
    }
}

fn overrides() -> impl Strategy<Value = BTreeMap<String, String>> {
    let pair = prop::sample::select(KEYS.iter().collect::<Vec<_>>())
        .prop_flat_map(|key| value(key).prop_map(|value| (key.name.to_owned(), value)));
    prop::collection::vec(pair, 0..10).prop_map(|pairs| pairs.into_iter().collect())
}

fn texts(config: &TopicConfig) -> BTreeMap<String, String> {
    KEYS.iter().map(|key| (key.name.to_owned(), config.text(key))).collect()
}

proptest! {
    #[test]
    fn texts_of_a_configuration_make_it_again(overrides in overrides()) {
        let config = TopicConfig::resolve(&TopicConfig::default(), &overrides).unwrap();
        for (name, value) in &overrides {
            let key = super::key(name).unwrap();
            let text = config.text(key);
            prop_assert_eq!(&text, &key.kind.normalized(value), "{}", name);
            prop_assert_eq!(&key.kind.normalized(&text), &text, "{} is not normal", name);
            prop_assert_eq!(key.validate(&text), Ok(()), "{}", name);
        }
        let again = TopicConfig::resolve(&TopicConfig::default(), &texts(&config)).unwrap();
        prop_assert_eq!(texts(&again), texts(&config));
        // As defaults of a broker they give the same to a topic that overrides nothing.
        prop_assert_eq!(TopicConfig::resolve(&again, &BTreeMap::new()).unwrap(), again);
    }
}
