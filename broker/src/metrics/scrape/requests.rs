//! Requests by API, errors, connections, and how busy the threads are that serve them.
//!
//! Never: a quantile or a rate of more than the last minute; a share that nobody measured.

use kafka_protocol::ResponseError;

use super::super::{
    families::{Families, Family},
    recent::{Lately, Sample},
};
use crate::{
    api::{APIS, fetch},
    counters::{PHASES, Requests},
    server::ServerView,
};

/// Kafka's percentiles.
const QUANTILES: [f64; 6] = [0.5, 0.75, 0.95, 0.98, 0.99, 0.999];

/// What is told of requests and connections.
pub(super) struct Requesting<'a> {
    pub(super) now: &'a Sample,
    pub(super) lately: Lately,
    pub(super) server: &'a ServerView,
}

impl Requesting<'_> {
    pub(super) fn tell(&self, families: &mut Families) {
        self.requests(families);
        self.errors(families);
        self.connections(families);
        self.threads(families);
    }

    /// By name: the requests so far, and those of late. Kafka counts fetches once more by who fetches.
    fn by_name(&self) -> Vec<(&'static str, &Requests, Option<&Requests>)> {
        let mut by_name = Vec::new();
        for (row, api) in APIS.iter().enumerate() {
            let Some(requests) = self.now.requests[row].as_deref() else { continue };
            let lately = self.lately.requests[row].as_deref();
            by_name.push((api.name, requests, lately));
            if api.key == fetch::API.key {
                // There are no followers yet: whoever fetches is a consumer.
                by_name.push(("FetchConsumer", requests, lately));
            }
        }
        by_name
    }

    fn requests(&self, families: &mut Families) {
        let name = |name: &str| format!("kafka_network_requestmetrics_{name}");
        let by_name = self.by_name();
        let mut requests = Family::counter(&name("requests_total"), "Requests that were answered.");
        let mut bytes = Family::counter(&name("requestbytes_total"), "Bytes of requests.");
        for (api, of, _) in &by_name {
            requests.value(&[("request", api)], of.count() as f64);
            bytes.value(&[("request", api)], of.bytes as f64);
        }
        for family in [&mut requests, &mut bytes] {
            family.value(&[("request", "FetchFollower")], 0.0);
        }
        families.add(requests);
        families.add(bytes);
        families.also(&name("requests_total"), &name("requestspersec"));
        for (phase, (short, help)) in PHASES.iter().enumerate() {
            let help = format!("{help} Quantiles are of the last minute.");
            let mut family = Family::summary(&name(short), &help);
            for (api, of, lately) in &by_name {
                let counts = &of.times[phase];
                let value = |quantile| lately.and_then(|lately| lately.times[phase].quantile(quantile));
                let quantiles = QUANTILES.map(|quantile| (quantile, value(quantile).unwrap_or(f64::NAN)));
                family.sum(&[("request", api)], quantiles, counts.count(), counts.sum());
            }
            let none = QUANTILES.map(|quantile| (quantile, f64::NAN));
            family.sum(&[("request", "FetchFollower")], none, 0, 0.0);
            families.add(family);
        }
        let mut total = Family::histogram(
            "gracchus_request_timems",
            "Milliseconds from the whole request to its answer in the socket.",
        );
        for (api, of, _) in by_name.iter().filter(|(api, ..)| *api != "FetchConsumer") {
            total.times(&[("request", api)], &of.times[0].times());
        }
        families.add(total);
    }

    fn errors(&self, families: &mut Families) {
        let told = "kafka_network_requestmetrics_errors_total";
        let help =
            "Errors that were answered, also those of single partitions; successes (NONE) are not counted.";
        let mut errors = Family::counter(told, help);
        for api in APIS {
            for (code, count) in self.server.metrics().errors(api.key) {
                errors.value(&[("request", api.name), ("error", &error_name(code))], count as f64);
            }
        }
        families.add(errors);
        families.also(told, "kafka_network_requestmetrics_errorspersec");
    }

    fn connections(&self, families: &mut Families) {
        let metrics = |name: &str| format!("kafka_server_socketservermetrics_{name}");
        let mut open = Family::gauge(&metrics("connections"), "Open connections.");
        let mut accepted =
            Family::counter(&metrics("connection_creation_total"), "Connections that were accepted.");
        let mut closed = Family::counter(
            &metrics("connection_close_total"),
            "Connections that were accepted and have ended.",
        );
        let mut creation =
            Family::gauge(&metrics("connection_creation_rate"), "Accepted a second, in the last minute.");
        let mut close =
            Family::gauge(&metrics("connection_close_rate"), "Ended a second, in the last minute.");
        let mut refused = Family::counter(
            "gracchus_connections_refused_total",
            "Connections that were closed at once: their address had max.connections.per.ip.",
        );
        let mut expired = Family::counter(
            "kafka_network_socketserver_expiredconnectionskilledcount_total",
            "Connections that the broker ended: idle, stalled in a request, not reading.",
        );
        for (index, (name, listener)) in self.server.metrics().listeners.iter().enumerate() {
            let labels = [("listener", &**name)];
            open.value(&labels, listener.open.get() as f64);
            let (so_far, of_them_closed) = self.now.connections[index];
            accepted.value(&labels, so_far as f64);
            closed.value(&labels, of_them_closed as f64);
            if let Some((created, ended)) = self.lately.connections.get(index) {
                creation.value(&labels, *created);
                close.value(&labels, *ended);
            }
            refused.value(&labels, listener.refused.get() as f64);
            expired.value(&labels, listener.expired.get() as f64);
        }
        for family in [open, accepted, closed, creation, close, refused, expired] {
            families.add(family);
        }
        // The JMX exporter's rules write the bean's type in two ways.
        for other in ["kafka_server_socketservermetrics", "kafka_server_socket_server_metrics"] {
            families.also(&metrics("connections"), &format!("{other}_connection_count"));
        }
    }

    fn threads(&self, families: &mut Families) {
        let network = "kafka_network_socketserver_networkprocessoravgidle";
        let handlers = "kafka_server_kafkarequesthandlerpool_requesthandleravgidle";
        if let Some(idle) = self.lately.workers_idle {
            let help = "Share of the last minute, 0 to 1, in which the threads had nothing to do that serve sockets \
                        and decide requests.";
            families.gauge(&format!("{network}_percent"), help, idle);
            families.also(&format!("{network}_percent"), &format!("{network}percent"));
        }
        if let Some(idle) = self.lately.io_idle {
            let help = "Share of the last minute, 0 to 1, in which the threads had nothing to do that read and \
                        write files for requests.";
            families.gauge(&format!("{handlers}_percent"), help, idle);
            families.also(&format!("{handlers}_percent"), &format!("{handlers}percent_oneminuterate"));
        }
    }
}

/// As Kafka calls the error.
fn error_name(code: i16) -> String {
    let error = match ResponseError::try_from_code(code) {
        Some(ResponseError::Unknown(_)) | None => return "UNKNOWN_SERVER_ERROR".to_owned(),
        Some(error) => format!("{error:?}"),
    };
    let mut name = String::with_capacity(error.len() + 8);
    for character in error.chars() {
        if character.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(character.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_names_that_kafka_gives_them() {
        for (code, name) in [
            (-1, "UNKNOWN_SERVER_ERROR"),
            (1, "OFFSET_OUT_OF_RANGE"),
            (2, "CORRUPT_MESSAGE"),
            (3, "UNKNOWN_TOPIC_OR_PARTITION"),
            (6, "NOT_LEADER_OR_FOLLOWER"),
            (19, "NOT_ENOUGH_REPLICAS"),
            (45, "OUT_OF_ORDER_SEQUENCE_NUMBER"),
            (56, "KAFKA_STORAGE_ERROR"),
            (87, "INVALID_RECORD"),
            (199, "UNKNOWN_SERVER_ERROR"),
        ] {
            assert_eq!(error_name(code), name, "{code}");
        }
    }
}
