//! Config providers (KIP-297, KIP-421, KIP-887): `${provider:path:key}` in a value stands for something outside the file.
//!
//! `config.providers` names them, `config.providers.NAME.class` says what they are, `config.providers.NAME.param.*` what
//! they may read. Kafka's own three are served: environment variables, keys of properties files, files of a directory;
//! one called `env`, `file` or `directory` needs no class. What they give is not looked through again. Unlike Kafka, which
//! passes on what it cannot replace, each placeholder is replaced or an error that names its file and line. Never: a
//! placeholder as a value; the value of a secret in a message.

use std::{
    collections::BTreeMap,
    io,
    path::{Component, Path, PathBuf},
};

use gracchus_core::properties;
use regex_lite::Regex;

use super::{
    keys,
    settings::{ConfigError, Settings},
};

const NAMES: &str = "config.providers";

/// What is around the process, as far as providers ask for it.
pub trait Outside {
    /// An environment variable.
    fn variable(&self, name: &str) -> Option<String>;
    /// All of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
}

/// Nothing: no variables, no files.
#[derive(Debug, Clone, Copy)]
pub struct Nothing;

impl Outside for Nothing {
    fn variable(&self, _name: &str) -> Option<String> {
        None
    }

    fn read(&self, _path: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Replaces every placeholder in `settings`.
pub(super) fn resolve(settings: &mut Settings, outside: &dyn Outside) -> Result<(), ConfigError> {
    let mut problems = Vec::new();
    let mut providers = BTreeMap::new();
    for name in gracchus_core::topic::words(&settings.used(NAMES).unwrap_or_default()) {
        match Provider::of(settings, name) {
            Ok(provider) => drop(providers.insert(name.to_owned(), provider)),
            Err((key, problem)) => problems.push(format!("{}: {key}: {problem}", settings.origin(&key))),
        }
    }
    let mut reading = Reading { outside, providers, files: BTreeMap::new() };
    for key in settings.names() {
        let is_own = key == NAMES || key.starts_with("config.providers.");
        let value = settings.get(&key).unwrap_or_default();
        if is_own || !value.contains("${") {
            continue;
        }
        match reading.replaced(value, keys::key(&key).is_some()) {
            Ok(replaced) => settings.replace(&key, &replaced),
            Err(problem) => problems.push(format!("{}: {key}: {problem}", settings.origin(&key))),
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems }) }
}

/// Where values may come from.
#[derive(Debug)]
enum Provider {
    /// Environment variables, those whose whole name matches.
    Variables(Option<Regex>),
    /// Keys of properties files.
    Files(Allowed),
    /// Files of a directory.
    Directories(Allowed),
    /// Of a class that is not Kafka's.
    Foreign(String),
}

/// `allowed.paths`: what lies in one of these; anything when there are none.
#[derive(Debug)]
struct Allowed(Vec<PathBuf>);

impl Provider {
    /// The provider called `name`, or the key that is wrong and why.
    fn of(settings: &mut Settings, name: &str) -> Result<Self, (String, String)> {
        let own = |what: &str| format!("{NAMES}.{name}.{what}");
        settings.use_all(&own(""));
        let class = settings.get(&own("class")).unwrap_or_default().to_owned();
        let kind = match class.strip_prefix("org.apache.kafka.common.config.provider.") {
            Some("EnvVarConfigProvider") => "env",
            Some("FileConfigProvider") => "file",
            Some("DirectoryConfigProvider") => "directory",
            _ if class.is_empty() => name,
            _ => "",
        };
        let paths = || Allowed::of(settings.get(&own("param.allowed.paths")).unwrap_or_default());
        let wrong_paths = |problem| (own("param.allowed.paths"), problem);
        match kind {
            "env" => {
                let key = own("param.allowlist.pattern");
                let pattern = settings.get(&key).filter(|pattern| !pattern.is_empty());
                let pattern = pattern.map(|pattern| Regex::new(&format!("^(?:{pattern})$"))).transpose();
                pattern.map(Self::Variables).map_err(|error| (key, error.to_string()))
            }
            "file" => paths().map(Self::Files).map_err(wrong_paths),
            "directory" => paths().map(Self::Directories).map_err(wrong_paths),
            _ if class.is_empty() => Err((NAMES.to_owned(), format!("{} is missing", own("class")))),
            _ => Ok(Self::Foreign(class)),
        }
    }
}

impl Allowed {
    fn of(list: &str) -> Result<Self, String> {
        let paths: Vec<PathBuf> = gracchus_core::topic::words(list).map(PathBuf::from).collect();
        match paths.iter().find(|path| !path.is_absolute()) {
            Some(path) => Err(format!("{} is not an absolute path", path.display())),
            None => Ok(Self(paths.iter().map(|path| normal(path)).collect())),
        }
    }

    /// `path` without detours, if it may be read.
    fn place(&self, path: &str) -> Result<PathBuf, String> {
        let place = normal(Path::new(path));
        let may = self.0.is_empty() || self.0.iter().any(|allowed| place.starts_with(allowed));
        if may { Ok(place) } else { Err(format!("{path} is not in the provider's allowed.paths")) }
    }
}

/// `path` without `.` and `..`, by its text alone.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if normal.file_name().is_some() => drop(normal.pop()),
            other => normal.push(other),
        }
    }
    normal
}

/// Replaces placeholders; reads each file once.
struct Reading<'a> {
    outside: &'a dyn Outside,
    providers: BTreeMap<String, Provider>,
    files: BTreeMap<PathBuf, BTreeMap<String, String>>,
}

impl Reading<'_> {
    /// `value` with each placeholder replaced. `${x}`, which names no provider, is none for Kafka; as a value that we
    /// act on it is a mistake all the same.
    fn replaced(&mut self, value: &str, acted_on: bool) -> Result<String, String> {
        let mut replaced = String::with_capacity(value.len());
        let mut rest = value;
        while let Some((before, behind)) = rest.split_once("${") {
            let Some((inner, after)) = behind.split_once('}') else { break };
            replaced.push_str(before);
            let fail = |why: String| format!("`${{{inner}}}` cannot be replaced: {why}");
            match inner.split_once(':') {
                Some((provider, place)) => replaced.push_str(&self.value(provider, place).map_err(fail)?),
                None if acted_on => {
                    return Err(fail(format!(
                        "it names no provider; an environment variable is `${{env:{inner}}}`, with {NAMES}=env"
                    )));
                }
                None => replaced.extend(["${", inner, "}"]),
            }
            rest = after;
        }
        replaced.push_str(rest);
        Ok(replaced)
    }

    /// What `place` (`key`, or `path:key`) is to the provider called `name`.
    fn value(&mut self, name: &str, place: &str) -> Result<String, String> {
        let (path, key) = place.split_once(':').unwrap_or(("", place));
        let provider = self.providers.get(name);
        match provider.ok_or_else(|| format!("{NAMES} does not name `{name}`"))? {
            Provider::Foreign(class) => Err(format!(
                "the provider is of class {class}; only Kafka's EnvVarConfigProvider, FileConfigProvider and \
                 DirectoryConfigProvider are served"
            )),
            Provider::Variables(_) if !path.is_empty() => {
                Err("an environment variable has no path".to_owned())
            }
            Provider::Variables(Some(pattern)) if !pattern.is_match(key) => {
                Err(format!("the provider's allowlist.pattern does not match {key}"))
            }
            Provider::Variables(_) => {
                self.outside.variable(key).ok_or_else(|| format!("there is no environment variable {key}"))
            }
            _ if path.is_empty() => Err("it names no path".to_owned()),
            Provider::Files(allowed) => {
                let place = allowed.place(path)?;
                if !self.files.contains_key(&place) {
                    let keys = properties_of(self.outside, &place)?;
                    self.files.insert(place.clone(), keys);
                }
                let value = self.files[&place].get(key).cloned();
                value.ok_or_else(|| format!("{path} has no key {key}"))
            }
            Provider::Directories(allowed) => {
                let plain = matches!(Path::new(key).components().collect::<Vec<_>>()[..], [Component::Normal(name)] if name == key);
                if !plain {
                    return Err(format!("`{key}` is no name of a file"));
                }
                let file = allowed.place(path)?.join(key);
                let contents =
                    self.outside.read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
                // Whoever made the file with an editor or `echo` did not mean the line end.
                Ok(properties::decode(&contents).trim_end_matches(['\r', '\n']).to_owned())
            }
        }
    }
}

fn properties_of(outside: &dyn Outside, file: &Path) -> Result<BTreeMap<String, String>, String> {
    let contents = outside.read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let entries = properties::parse(&properties::decode(&contents));
    let entries = entries.map_err(|error| format!("{}:{}: {}", file.display(), error.line, error.problem))?;
    Ok(entries.into_iter().map(|entry| (entry.key, entry.value)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BrokerConfig;

    struct Machine;

    impl Outside for Machine {
        fn variable(&self, name: &str) -> Option<String> {
            let value = match name {
                "HOST" => "kafka-1.example",
                "ID" => "7",
                "TRICKY" => "${env:HOST}",
                "EMPTY" => "",
                _ => return None,
            };
            Some(value.to_owned())
        }

        fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
            match path.to_str() {
                Some("/etc/kafka/node.properties") => Ok(b"id = 7\nrack : Z\xfcrich\n".to_vec()),
                Some("/etc/kafka/broken.properties") => Ok(b"a=\\u1".to_vec()),
                Some("/run/secrets/host") => Ok(b"kafka-2.example\n".to_vec()),
                _ => Err(io::ErrorKind::NotFound.into()),
            }
        }
    }

    const KAFKAS: &str = "org.apache.kafka.common.config.provider.";

    fn resolved(text: &str) -> Result<Settings, ConfigError> {
        let mut settings = Settings::default();
        settings.add_file("f", text)?;
        settings.resolve(&Machine).map(|()| settings)
    }

    fn value(lines: &str, value: &str) -> Result<String, String> {
        let settings = resolved(&format!("{lines}\nbroker.rack={value}\n"));
        let of = |settings: Settings| settings.get("broker.rack").unwrap().to_owned();
        settings.map(of).map_err(|error| error.to_string())
    }

    #[test]
    fn kafkas_three_providers_give_their_values() {
        let all = "config.providers=env, file,directory";
        for (placeholder, expected) in [
            ("${env:HOST}", "kafka-1.example"),
            ("${env:TRICKY}", "${env:HOST}"),
            ("[${env:EMPTY}]", "[]"),
            ("${file:/etc/kafka/node.properties:rack}", "Zürich"),
            ("${file:/etc/kafka/../kafka/./node.properties:id}-${env:ID}", "7-7"),
            ("a/${directory:/run/secrets:host}/b", "a/kafka-2.example/b"),
            ("$HOST {env:HOST} ${", "$HOST {env:HOST} ${"),
        ] {
            assert_eq!(value(all, placeholder).as_deref(), Ok(expected), "{placeholder}");
        }
        let settings =
            resolved("config.providers=env\nnode.id=${env:ID}\nlisteners=PLAINTEXT://${env:HOST}:1\n");
        let (config, warnings) = BrokerConfig::load(&settings.unwrap(), "here").unwrap();
        assert_eq!((config.node_id.0, config.listeners[0].host.as_str()), (7, "kafka-1.example"));
        assert_eq!(warnings, Vec::<String>::new(), "the provider's keys have their effect");
    }

    #[test]
    fn a_provider_has_the_name_that_its_user_gives_it() {
        let lines = format!(
            "config.providers=one,two\nconfig.providers.one.class={KAFKAS}EnvVarConfigProvider\n\
             config.providers.one.param.allowlist.pattern=HO.*|TR\nconfig.providers.two.class={KAFKAS}DirectoryConfigProvider\n\
             config.providers.two.param.allowed.paths=/srv,/run/secrets"
        );
        assert_eq!(value(&lines, "${one:HOST}").as_deref(), Ok("kafka-1.example"));
        assert_eq!(value(&lines, "${two:/run/secrets:host}").as_deref(), Ok("kafka-2.example"));
        for (placeholder, why) in [
            ("${one:ID}", "allowlist.pattern does not match ID"),
            ("${one:TRICKY}", "allowlist.pattern does not match TRICKY"),
            ("${two:/run/secrets/../other:host}", "is not in the provider's allowed.paths"),
            ("${two:/run/secrets:../secrets/host}", "is no name of a file"),
            ("${env:HOST}", "config.providers does not name `env`"),
        ] {
            let problem = value(&lines, placeholder).unwrap_err();
            assert!(problem.starts_with("f:6: broker.rack: `${") && problem.contains(why), "{problem}");
        }
    }

    #[test]
    fn what_is_not_replaced_is_an_error_of_its_line() {
        let vault =
            "config.providers=env,file,directory,vault\nconfig.providers.vault.class=com.example.Vault";
        for (placeholder, why) in [
            ("${env:NOBODY}", "there is no environment variable NOBODY"),
            ("${env:a:HOST}", "an environment variable has no path"),
            ("${file:/etc/kafka/node.properties:other}", "/etc/kafka/node.properties has no key other"),
            ("${file:/etc/kafka/none.properties:id}", "/etc/kafka/none.properties: "),
            ("${file:/etc/kafka/broken.properties:a}", "/etc/kafka/broken.properties:1: "),
            ("${file:id}", "it names no path"),
            ("${directory:/run/secrets:none}", "/run/secrets/none: "),
            ("${vault:a:b}", "of class com.example.Vault; only Kafka's"),
            ("${HOST}", "an environment variable is `${env:HOST}`"),
            ("${HOST:-kafka}", "config.providers does not name `HOST`"),
        ] {
            let problem = value(vault, placeholder).unwrap_err();
            assert!(problem.starts_with("f:3: broker.rack: `${") && problem.contains(why), "{problem}");
        }
        assert_eq!(value(vault, "none").as_deref(), Ok("none"), "what nobody uses does no harm");
    }

    #[test]
    fn what_has_no_effect_is_looked_through_as_well() {
        let problems =
            resolved("sasl.jaas.config=x password=\"${file:/none:p}\";\n\nno.such.key=${x} ${y:z}\n");
        let problems = problems.unwrap_err().problems;
        assert!(problems[0].starts_with("f:3: no.such.key: `${y:z}` cannot be replaced"), "{problems:?}");
        assert!(problems[1].starts_with("f:1: sasl.jaas.config: `${file:/none:p}`"), "{problems:?}");
        assert!(resolved("no.such.key=${x}").is_ok(), "no placeholder of Kafka's");
    }

    #[test]
    fn a_provider_that_makes_no_sense_is_an_error_of_its_line() {
        for (line, problem) in [
            ("config.providers=odd", "config.providers.odd.class is missing"),
            (
                "config.providers=env\nconfig.providers.env.param.allowlist.pattern=(",
                "f:2: config.providers.env.param",
            ),
            (
                "config.providers=file\nconfig.providers.file.param.allowed.paths=etc",
                "etc is not an absolute path",
            ),
        ] {
            let problems = resolved(line).unwrap_err().problems;
            assert!(problems.len() == 1 && problems[0].contains(problem), "{problems:?}");
        }
    }
}
