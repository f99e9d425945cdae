//! Configurations that guard something: who may connect, what he may do, what is refused, where no data goes. As long as
//! the guard is not built, a value that asks for it is refused, in the file and at run time: a broker that started with it
//! would be open where its owner believes it shut. A value that asks for nothing is taken.
//!
//! What sounds like a guard and is none stands in [`NO_GUARDS`] with the reason. Listeners with TLS or SASL are refused where
//! listeners are read. Never: a guard that is only warned about.

use super::kafka;

/// A key that guards something.
struct Guard {
    /// Kafka's name; the same key of a single listener is meant as well.
    key: &'static str,
    /// The values that guard nothing.
    harmless: &'static [&'static str],
    /// What cannot be honoured, and what to do.
    why: &'static str,
}

const NO_AUTHORIZATION: &str = "there is no authorization yet, and whoever connects may do everything; take the key out, and \
                                let the network decide who connects";
const NO_TLS: &str = "there is no TLS yet, so no client is asked for a certificate; set it to none, and let the network \
                      decide who connects";
const NO_POLICY: &str = "classes of Java cannot be loaded, so what the policy forbids would be done; take the key out, and \
                         forbid it where requests come from";

const GUARDS: [Guard; 11] = [
    Guard { key: "authorizer.class.name", harmless: &[""], why: NO_AUTHORIZATION },
    Guard { key: "super.users", harmless: &[""], why: NO_AUTHORIZATION },
    // Without an authorizer everything is allowed, which is what `true` asks for.
    Guard { key: "allow.everyone.if.no.acl.found", harmless: &["true"], why: NO_AUTHORIZATION },
    Guard { key: "ssl.client.auth", harmless: &["none"], why: NO_TLS },
    Guard {
        key: "security.inter.broker.protocol",
        harmless: &["PLAINTEXT"],
        why: "only PLAINTEXT is served yet; set that, and let the network decide who connects",
    },
    Guard {
        key: "principal.builder.class",
        harmless: &["org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder"],
        why: "classes of Java cannot be loaded, and every client is User:ANONYMOUS; take the key out",
    },
    Guard { key: "create.topic.policy.class.name", harmless: &[], why: NO_POLICY },
    Guard { key: "alter.config.policy.class.name", harmless: &[], why: NO_POLICY },
    Guard {
        key: "client.quota.callback.class",
        harmless: &[],
        why: "there are no quotas yet, so no client would be held back; take the key out",
    },
    Guard {
        key: "cordoned.log.dirs",
        harmless: &[""],
        why: "new partitions would go to a directory that is to get none; take the directory out of log.dirs, or the key out",
    },
    Guard {
        key: "remote.log.storage.system.enable",
        harmless: &["false"],
        why: "there is no tiered storage, so local disks would fill up; set it to false, and bound topics by retention.bytes",
    },
];

/// Families of keys that sound like guards, by how their names begin, and why they guard nothing here.
#[cfg(test)]
const NO_GUARDS: &[(&str, &str)] = &[
    ("sasl.", "means something on a listener with SASL only, and such a listener is refused"),
    ("ssl.", "means something on a listener with TLS only, and such a listener is refused"),
    (
        "connections.max.reauth.ms",
        "means something on a listener with SASL only, and such a listener is refused",
    ),
    ("connection.failed.authentication.delay.ms", "nobody authenticates, so nobody fails to"),
    (
        "delegation.token.",
        "lets in with tokens who came in with SASL before; without SASL nobody gets in by it",
    ),
    ("security.providers", "are what Java takes TLS from"),
    ("early.start.listeners", "open before an authorizer is ready; there is none"),
    ("listener.security.protocol.map", "is acted on: a protocol that is not served is refused"),
    ("alter.log.dirs.replication.quota.", "is how a rate is measured, not a rate"),
    ("controller.quota.", "is how a rate is measured, not a rate"),
    ("quota.", "is how a rate is measured, not a rate"),
    ("replication.quota.", "is how a rate is measured, not a rate"),
    ("remote.log.", "means something with remote.log.storage.system.enable=true only, which is refused"),
    ("group.consumer.migration.policy", "says how groups migrate, not who may"),
    ("log.cleanup.policy", "is acted on"),
    ("group.share.persister.class.name", "names a store of Kafka's own"),
    ("replica.selector.class", "chooses among replicas; there is one"),
    ("max.connection.creation.rate", "bounds load, not access; the number of connections is bounded"),
    ("max.connections", "is acted on"),
];

/// Why `value` of `name` is refused, if it asks for a guard that is not built. Does not repeat the value.
pub(super) fn refuse(name: &str, value: &str) -> Option<String> {
    let key = kafka::key(name).map_or(name, |named| named.key.name);
    let guard = GUARDS.iter().find(|guard| guard.key == key)?;
    let harmless = guard.harmless.iter().any(|harmless| harmless.eq_ignore_ascii_case(value.trim()));
    (!harmless).then(|| format!("cannot be honoured: {}", guard.why))
}

/// Whether `name` is a key of Kafka's that guards something, also where the list of Kafka's own keys does not have it:
/// those of its authorizer.
pub(super) fn is_guard(name: &str) -> bool {
    GUARDS.iter().any(|guard| guard.key == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_asks_for_a_guard_is_refused_and_what_asks_for_none_is_not() {
        for (key, value) in [
            ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
            ("super.users", "User:admin"),
            ("allow.everyone.if.no.acl.found", "false"),
            ("allow.everyone.if.no.acl.found", ""),
            ("ssl.client.auth", "required"),
            ("ssl.client.auth", "requested"),
            ("listener.name.outside.ssl.client.auth", "required"),
            ("listener.name.outside.principal.builder.class", "com.example.Builder"),
            ("create.topic.policy.class.name", "com.example.Policy"),
            ("cordoned.log.dirs", "/disk-2"),
        ] {
            let why = refuse(key, value).unwrap_or_else(|| panic!("{key}={value}"));
            assert!(why.starts_with("cannot be honoured: "), "{why}");
        }
        for (key, value) in [
            ("authorizer.class.name", ""),
            ("super.users", " "),
            ("allow.everyone.if.no.acl.found", "TRUE"),
            ("ssl.client.auth", "none"),
            ("listener.name.outside.ssl.client.auth", "none"),
            ("ssl.keystore.location", "/etc/keys"),
            ("sasl.enabled.mechanisms", "PLAIN"),
            ("num.partitions", "3"),
        ] {
            assert_eq!(refuse(key, value), None, "{key}={value}");
        }
    }

    /// Whoever adds a key of a new Kafka to the list has to decide.
    #[test]
    fn every_key_that_sounds_like_a_guard_was_decided_on() {
        let sounds = [
            "auth",
            "acl",
            "ssl",
            "sasl",
            "security",
            "token",
            "principal",
            "policy",
            "quota",
            "class",
            "max.connection",
            "cordon",
            "users",
            "enable.security",
        ];
        let keys = || kafka::keys().iter().map(|key| key.name);
        for name in keys().filter(|name| sounds.iter().any(|sound| name.contains(sound))) {
            let decided = is_guard(name) || NO_GUARDS.iter().any(|(family, _)| name.starts_with(family));
            assert!(decided, "{name}: a guard or none, and why?");
        }
        for (family, _) in NO_GUARDS {
            assert!(keys().any(|name| name.starts_with(family)), "{family} is no key of Kafka's any more");
        }
        // The harmless values are legal, and Kafka's default is one of them.
        for guard in &GUARDS {
            let Some(named) = kafka::key(guard.key) else { continue };
            for value in guard.harmless {
                assert_eq!(named.validate(value), Ok(()), "{}={value}", guard.key);
            }
            let default = named.key.default.unwrap_or_default();
            assert!(named.key.default.is_none() || refuse(guard.key, default).is_none(), "{}", guard.key);
        }
    }
}
