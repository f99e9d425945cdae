//! What the broker counts about itself, and how an operator sees it: [`endpoint`] serves `/metrics`, `/health` and
//! `/ready` over HTTP when `metrics.listener` is configured.
//!
//! Names are those that Prometheus' usual rules for Kafka's JMX beans give, so that dashboards made for Kafka find them;
//! what Kafka does not have begins with `gracchus_`. The hot path adds to plain atomics ([`crate::counters`]); all else is
//! read from published snapshots when somebody asks ([`scrape`]); what is of the last minute is made of samples
//! ([`recent`]). Never: a clock that is not Env's.

pub(crate) mod endpoint;
mod families;
mod recent;
mod scrape;

pub(crate) use recent::Recent;
pub(crate) use scrape::Sources;
