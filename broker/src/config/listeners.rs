//! `listeners`, `advertised.listeners` and what maps their names to security protocols.
//!
//! A listener is `NAME://host:port`. Its name says nothing about its protocol: the map does. Listeners named in
//! `controller.listener.names` are for the quorum and never serve clients.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::settings::Reader;

/// `NAME://host:port` as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Upper case, unique among the listeners.
    pub name: String,
    /// Host name or address without brackets; empty means every interface.
    pub host: String,
    /// 0 lets the system choose.
    pub port: u16,
}

impl Endpoint {
    /// What to hand to `Env::listen` or `Env::connect`: `host:port`, an IPv6 address in brackets; without a host it is
    /// every interface, of both IP versions.
    pub fn address(&self) -> String {
        let Endpoint { host, port, .. } = self;
        match host.as_str() {
            host if host.contains(':') => format!("[{host}]:{port}"),
            host => format!("{host}:{port}"),
        }
    }

    fn parse(text: &str) -> Result<Endpoint, String> {
        let malformed = || format!("`{text}` is not `NAME://host:port`");
        let (name, address) = text.split_once("://").ok_or_else(malformed)?;
        if !address.contains(':') {
            return Err(malformed());
        }
        let (host, port) = host_and_port(address).map_err(|problem| format!("`{text}`: {problem}"))?;
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        {
            return Err(format!("`{text}`: `{name}` is not a listener name"));
        }
        Ok(Endpoint { name: name.to_uppercase(), host: host.to_owned(), port })
    }
}

/// Host (without brackets, perhaps empty) and port of `host:port`.
fn host_and_port(address: &str) -> Result<(&str, u16), String> {
    let (host, port) = address.rsplit_once(':').ok_or_else(|| format!("`{address}` is not `host:port`"))?;
    let port = port.parse().map_err(|_| format!("`{port}` is not a port (0 to 65535)"))?;
    let unbracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if unbracketed.is_none() && host.contains([':', '[', ']', '/']) {
        return Err(format!("`{host}` is not a host (an IPv6 address belongs in brackets)"));
    }
    Ok((unbracketed.unwrap_or(host), port))
}

/// `metrics.listener`.
pub(super) fn metrics(reader: &mut Reader<'_>) -> Option<String> {
    const KEY: &str = "metrics.listener";
    let address = reader.text(KEY)?;
    match host_and_port(address) {
        Ok(_) => Some(address.to_owned()),
        Err(problem) => {
            reader.problem(KEY, problem);
            None
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "{}://[{}]:{}", self.name, self.host, self.port)
        } else {
            write!(f, "{}://{}:{}", self.name, self.host, self.port)
        }
    }
}

/// What the listener keys say together.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) listeners: Vec<Endpoint>,
    pub(super) advertised: Vec<Endpoint>,
    pub(super) controller: Vec<Endpoint>,
    /// Every listener, and what each is advertised as: by what names this node goes.
    pub(super) every: Vec<Endpoint>,
}

/// Reads all keys about listeners. `host_name` is advertised for a listener on every interface.
pub(super) fn read(reader: &mut Reader<'_>, host_name: &str) -> Listeners {
    let all = endpoints(reader, "listeners").unwrap_or_default();
    let controller_names = names(reader, "controller.listener.names");
    let every = [all.clone(), endpoints(reader, "advertised.listeners").unwrap_or_default()].concat();
    check_protocols(reader, &all);

    let (controller, listeners): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|endpoint| controller_names.contains(&endpoint.name));
    if listeners.is_empty() {
        reader.problem("listeners", "no listener is left for clients");
    }
    // What Kafka takes for two names of the same thing, and refuses together.
    const BETWEEN: &str = "inter.broker.listener.name";
    const PROTOCOL: &str = "security.inter.broker.protocol";
    if reader.is_set(BETWEEN) && reader.is_set(PROTOCOL) {
        reader.problem(
            BETWEEN,
            format!("contradicts {PROTOCOL}: both say how brokers reach each other, set one"),
        );
    }
    for name in names(reader, BETWEEN) {
        if !listeners.iter().any(|endpoint| endpoint.name == name) {
            reader.problem(BETWEEN, format!("`{name}` is not among the listeners"));
        }
    }
    let advertised = advertised(reader, &listeners, &controller_names, host_name);
    Listeners { listeners, advertised, controller, every }
}

fn names(reader: &mut Reader<'_>, key: &str) -> BTreeSet<String> {
    reader.list(key).unwrap_or_default().into_iter().map(|name| name.to_uppercase()).collect()
}

fn endpoints(reader: &mut Reader<'_>, key: &str) -> Option<Vec<Endpoint>> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for text in reader.list(key)? {
        match Endpoint::parse(&text) {
            Err(problem) => reader.problem(key, problem),
            Ok(new) if endpoints.iter().any(|endpoint| endpoint.name == new.name) => {
                reader.problem(key, format!("the listener name {} occurs twice", new.name));
            }
            Ok(new)
                if key == "listeners"
                    && new.port != 0
                    && endpoints.iter().any(|old| same_socket(old, &new)) =>
            {
                reader.problem(key, format!("port {} occurs twice", new.port));
            }
            Ok(new) => endpoints.push(new),
        }
    }
    Some(endpoints)
}

fn same_socket(old: &Endpoint, new: &Endpoint) -> bool {
    old.port == new.port && old.host == new.host
}

/// Every listener needs a protocol that is served; the default map gives each protocol its own name.
fn check_protocols(reader: &mut Reader<'_>, listeners: &[Endpoint]) {
    const MAP: &str = "listener.security.protocol.map";
    let own_name = |protocol: &str| (protocol.to_owned(), protocol.to_owned());
    let mut protocols: BTreeMap<String, String> =
        ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"].map(own_name).into();
    let known: BTreeSet<String> = protocols.keys().cloned().collect();
    for pair in reader.list(MAP).unwrap_or_default() {
        match pair
            .rsplit_once(':')
            .map(|(name, protocol)| (name.trim().to_uppercase(), protocol.trim().to_uppercase()))
        {
            Some((name, protocol)) if known.contains(&protocol) => drop(protocols.insert(name, protocol)),
            Some((_, protocol)) => reader.problem(MAP, format!("`{protocol}` is not a security protocol")),
            None => reader.problem(MAP, format!("`{pair}` is not `NAME:PROTOCOL`")),
        }
    }
    for endpoint in listeners {
        match protocols.get(&endpoint.name).map(String::as_str) {
            Some("PLAINTEXT") => {}
            Some(protocol) => {
                reader.problem(
                    "listeners",
                    format!("{endpoint}: {protocol} is not served yet, only PLAINTEXT is"),
                );
            }
            None => {
                reader.problem("listeners", format!("{endpoint}: {MAP} gives {} no protocol", endpoint.name))
            }
        }
    }
}

fn advertised(
    reader: &mut Reader<'_>,
    listeners: &[Endpoint],
    controller_names: &BTreeSet<String>,
    host_name: &str,
) -> Vec<Endpoint> {
    const KEY: &str = "advertised.listeners";
    let Some(advertised) = endpoints(reader, KEY) else {
        return listeners.iter().map(|endpoint| advertised_by_default(endpoint, host_name)).collect();
    };
    let mut of_clients = Vec::new();
    for endpoint in advertised {
        if controller_names.contains(&endpoint.name) {
            continue;
        }
        if !listeners.iter().any(|listener| listener.name == endpoint.name) {
            reader.problem(KEY, format!("{} is not among the listeners", endpoint.name));
        } else if matches!(endpoint.host.as_str(), "" | "0.0.0.0" | "::") {
            reader.problem(KEY, format!("{endpoint}: a client cannot connect to every interface, name one"));
        }
        of_clients.push(endpoint);
    }
    if of_clients.is_empty() {
        reader.problem(KEY, "no listener is left for clients");
    }
    of_clients
}

fn advertised_by_default(listener: &Endpoint, host_name: &str) -> Endpoint {
    match listener.host.as_str() {
        "" | "0.0.0.0" | "::" => Endpoint { host: host_name.to_owned(), ..listener.clone() },
        _ => listener.clone(),
    }
}
