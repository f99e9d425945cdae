//! `controller.quorum.voters` and `controller.quorum.bootstrap.servers`: as long as a cluster is one node, they must name
//! this node and nobody else.
//!
//! A voter is told by its id, a bootstrap server by its host and port. Names are not resolved: what nobody can say to be
//! this node is refused. Never: a node that was meant to join others and becomes a cluster of its own.

use std::collections::BTreeSet;

use gracchus_core::BrokerId;

use super::{listeners::Endpoint, settings::Reader};

const VOTERS: &str = "controller.quorum.voters";
const SERVERS: &str = "controller.quorum.bootstrap.servers";

/// What to say where somebody else is named.
const ALONE: &str =
    "a cluster of several nodes is not served yet, and this node would become a cluster of its own";

/// By what names this node goes.
pub(super) struct Itself<'a> {
    pub(super) id: BrokerId,
    /// Its host's own name.
    pub(super) host_name: &'a str,
    /// Every listener, and what each is advertised as.
    pub(super) endpoints: &'a [Endpoint],
    /// Those of them that are for the quorum.
    pub(super) controllers: &'a [Endpoint],
}

pub(super) fn check(reader: &mut Reader<'_>, itself: &Itself<'_>) {
    let mut ids = BTreeSet::new();
    let mut malformed = false;
    for voter in reader.list(VOTERS).unwrap_or_default() {
        match parse_voter(&voter) {
            Some(id) => drop(ids.insert(id)),
            None => {
                malformed = true;
                reader.problem(VOTERS, format!("`{voter}` is not `id@host:port`"));
            }
        }
    }
    let own = itself.id.0;
    if ids.len() > 1 {
        let many = ids.len();
        reader.problem(VOTERS, format!("names {many} voters; {ALONE}. Name this one alone: {own}@host:port"));
    } else if !malformed && ids.iter().any(|id| *id != own) {
        reader.problem(VOTERS, format!("names another node than this one, whose node.id is {own}; {ALONE}"));
    }
    let servers = reader.list(SERVERS).unwrap_or_default();
    if servers.len() > 1 {
        let many = servers.len();
        reader.problem(SERVERS, format!("names {many} servers; {ALONE}. Name this one alone"));
    }
    for server in servers {
        match parse_server(&server) {
            None => reader.problem(SERVERS, format!("`{server}` is not `host:port`")),
            Some((host, port)) if !itself.is_at(host, port) => reader.problem(
                SERVERS,
                format!(
                    "`{server}` is not known to be this node; {ALONE}. Name it as a controller listener does, or as \
                     localhost"
                ),
            ),
            Some(_) => {}
        }
    }
}

impl Itself<'_> {
    fn is_at(&self, host: &str, port: u16) -> bool {
        let ports = || self.controllers.iter().map(|endpoint| endpoint.port);
        let is_port = self.controllers.is_empty() || ports().any(|own| own == port || own == 0);
        is_port && self.is_host(host)
    }

    fn is_host(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let own_name = self.host_name.to_ascii_lowercase();
        let is_address = host.contains(':') || host.starts_with(|first: char| first.is_ascii_digit());
        // A machine's own name is often the first part of the name that others call it by.
        let first = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
        matches!(host.as_str(), "localhost" | "::1" | "0.0.0.0" | "::")
            || host.starts_with("127.")
            || host == own_name
            || !is_address && first(&host) == first(&own_name)
            || self.endpoints.iter().any(|endpoint| endpoint.host.eq_ignore_ascii_case(&host))
    }
}

fn parse_voter(text: &str) -> Option<i32> {
    let (id, server) = text.split_once('@')?;
    parse_server(server)?;
    id.trim().parse().ok().filter(|id| *id >= 0)
}

fn parse_server(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some((host, port.parse().ok()?)).filter(|(host, _)| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::{BrokerConfig, Settings};

    const BASE: &str = "node.id=4\nlisteners=PLAINTEXT://:9092,CONTROLLER://:9093\n\
                        listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
                        controller.listener.names=CONTROLLER\nadvertised.listeners=PLAINTEXT://10.0.0.4:9092\n";

    fn verdict(line: &str) -> String {
        let mut settings = Settings::default();
        settings.add_file("server.properties", format!("{BASE}{line}\n")).unwrap();
        match BrokerConfig::load(&settings, "kafka-4") {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn this_node_alone_is_taken() {
        for line in [
            "controller.quorum.voters=4@kafka-4:9093",
            "controller.quorum.voters=4@anywhere.example:9093",
            "controller.quorum.voters=4@kafka-4:9093, 4@kafka-4:9093",
            "controller.quorum.voters=",
            "controller.quorum.bootstrap.servers=localhost:9093",
            "controller.quorum.bootstrap.servers=127.0.0.1:9093",
            "controller.quorum.bootstrap.servers=[::1]:9093",
            "controller.quorum.bootstrap.servers=KAFKA-4:9093",
            "controller.quorum.bootstrap.servers=kafka-4.kafka-headless.default.svc.cluster.local:9093",
            "controller.quorum.bootstrap.servers=10.0.0.4:9093",
            "controller.quorum.bootstrap.servers=",
        ] {
            assert_eq!(verdict(line), "", "{line}");
        }
    }

    #[test]
    fn others_are_refused_with_what_would_become_of_it() {
        for (line, sentence) in [
            (
                "controller.quorum.voters=3@kafka-3:9093",
                "names another node than this one, whose node.id is 4",
            ),
            (
                "controller.quorum.voters=3@a:9093,4@b:9093,5@c:9093",
                "names 3 voters; a cluster of several nodes",
            ),
            ("controller.quorum.voters=4@kafka-4", "`4@kafka-4` is not `id@host:port`"),
            ("controller.quorum.voters=four@kafka-4:9093", "`four@kafka-4:9093` is not"),
            (
                "controller.quorum.bootstrap.servers=kafka-3:9093",
                "`kafka-3:9093` is not known to be this node",
            ),
            ("controller.quorum.bootstrap.servers=localhost:9193", "`localhost:9193` is not known"),
            ("controller.quorum.bootstrap.servers=kafka-4:9093,kafka-5:9093", "names 2 servers"),
            ("controller.quorum.bootstrap.servers=kafka-4", "`kafka-4` is not `host:port`"),
        ] {
            let verdict = verdict(line);
            assert!(verdict.starts_with("server.properties:6: controller.quorum."), "{line}: {verdict}");
            assert!(verdict.contains(sentence), "{line}: {verdict}");
        }
    }
}
