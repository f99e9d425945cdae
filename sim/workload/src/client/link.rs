//! A link: one connection that is made again whenever it is gone.
//!
//! The model: the workload asks for the connection each time it wants to send; when there is none, the link connects
//! to the next bootstrap address, backs off after failures, and agrees on versions.
//! Never: repeats a request. Never complains about a broker that is away, only about one that answers wrongly.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use gracchus_env::Env;
use kafka_protocol::{
    messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse},
    protocol::StrBytes,
};
use rand::{Rng, SeedableRng, rngs::SmallRng};

use super::connection::{Calls, ClientError, Connection, is_errand, known_versions};
use crate::{
    history::Recorder,
    plan::{ClientTiming, SessionPromise, Versions},
};

/// What all clients of a run share.
#[derive(Debug)]
pub struct Bootstrap {
    /// `host:port` of brokers to try.
    pub addresses: Vec<String>,
    /// Deadlines and pauses.
    pub timing: ClientTiming,
    /// What was called.
    pub calls: Arc<Calls>,
    next_connection: AtomicU64,
}

impl Bootstrap {
    /// Brokers at `addresses`.
    pub fn new(addresses: Vec<String>, timing: ClientTiming) -> Self {
        assert!(!addresses.is_empty(), "a client needs an address");
        Self { addresses, timing, calls: Arc::default(), next_connection: AtomicU64::new(1) }
    }
}

/// One client's connection, kept up.
#[derive(Debug)]
pub struct Link {
    /// The world this client lives in.
    pub env: Arc<dyn Env>,
    bootstrap: Arc<Bootstrap>,
    /// Where the client tells what it sees.
    pub recorder: Recorder,
    versions: Versions,
    random: SmallRng,
    current: Option<Arc<Connection>>,
    attempts: u32,
}

impl Link {
    /// A link that is not yet connected.
    pub fn new(
        env: Arc<dyn Env>,
        bootstrap: Arc<Bootstrap>,
        recorder: Recorder,
        versions: Versions,
        random: &mut SmallRng,
    ) -> Self {
        let random = SmallRng::seed_from_u64(random.random());
        Self { env, bootstrap, recorder, versions, random, current: None, attempts: 0 }
    }

    /// Another link of the same client: connections of its own, the same behaviour.
    pub fn sibling(&mut self) -> Link {
        let (env, bootstrap) = (Arc::clone(&self.env), Arc::clone(&self.bootstrap));
        Link::new(env, bootstrap, self.recorder.clone(), self.versions, &mut self.random)
    }

    /// `host:port` of the broker that it tries first.
    pub fn address(&self) -> &str {
        &self.bootstrap.addresses[0]
    }

    /// What the brokers promise of fetch sessions.
    pub fn sessions(&self) -> SessionPromise {
        self.bootstrap.timing.sessions
    }

    /// How long a request may take.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.bootstrap.timing.request_timeout_ms)
    }

    /// The connection, made when there is none. Ends only with success; drop the future to give up.
    pub async fn connection(&mut self) -> Arc<Connection> {
        loop {
            if let Some(connection) = &self.current {
                match connection.closed() {
                    None => return Arc::clone(connection),
                    Some(why) => {
                        self.note(&why);
                        self.current = None;
                    }
                }
            }
            match self.connect().await {
                Ok(connection) => {
                    self.attempts = 0;
                    self.current = Some(Arc::new(connection));
                }
                Err(why) => {
                    self.note(&why);
                    self.attempts += 1;
                    self.back_off().await;
                }
            }
        }
    }

    /// Whether a connection is up right now.
    pub fn is_connected(&self) -> bool {
        self.current.as_ref().is_some_and(|connection| connection.closed().is_none())
    }

    /// Lets the connection go; the next request makes a new one.
    pub fn disconnect(&mut self) {
        if let Some(connection) = self.current.take() {
            connection.close(ClientError::Disconnected("closed by the client".into()));
        }
    }

    /// Complains if need be, and waits before the caller tries again.
    pub async fn failed(&mut self, error: &ClientError) {
        self.note(error);
        self.back_off().await;
    }

    /// Complains if `error` is the broker's fault.
    pub fn note(&self, error: &ClientError) {
        match error {
            ClientError::Protocol(story) => self.recorder.complain("protocol", story),
            ClientError::NotServed(story) => self.recorder.complain("advertised_versions", story),
            ClientError::Disconnected(_) | ClientError::TimedOut => {}
        }
    }

    /// Waits a little, longer after each failure in a row.
    pub async fn back_off(&mut self) {
        let timing = &self.bootstrap.timing;
        let longest = timing.retry_backoff_ms << self.attempts.clamp(1, 10).saturating_sub(1);
        let longest = longest.clamp(1, timing.retry_backoff_max_ms.max(1));
        let pause = self.random.random_range(longest / 2..=longest);
        self.env.sleep(Duration::from_millis(pause.max(1))).await;
    }

    /// A connection without any manners; `None` if it could not be made.
    pub async fn raw(&mut self) -> Option<gracchus_env::Connection> {
        let timing = &self.bootstrap.timing;
        let deadline = self.env.now() + Duration::from_millis(timing.connect_timeout_ms);
        self.env.connect(&self.bootstrap.addresses[0], deadline).await.ok()
    }

    async fn connect(&mut self) -> Result<Connection, ClientError> {
        let timing = &self.bootstrap.timing;
        let id = self.bootstrap.next_connection.fetch_add(1, Ordering::Relaxed);
        let address = &self.bootstrap.addresses[self.attempts as usize % self.bootstrap.addresses.len()];
        let deadline = self.env.now() + Duration::from_millis(timing.connect_timeout_ms);
        let calls = Arc::clone(&self.bootstrap.calls);
        let connection = Connection::open(&self.env, id, address, deadline, &self.recorder, calls).await?;
        self.negotiate(&connection).await?;
        Ok(connection)
    }

    async fn negotiate(&mut self, connection: &Connection) -> Result<(), ClientError> {
        let known = known_versions();
        let (lowest, highest) = known[&(ApiKey::ApiVersions as i16)];
        let version = self.choose(lowest, highest);
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("gracchus-workload"))
            .with_client_software_version(StrBytes::from_static_str("1"));
        let mut pending = connection.send(&request, version, self.request_timeout(), true)?;
        let response: ApiVersionsResponse = pending.wait().await?;
        if response.error_code != 0 {
            return Err(ClientError::NotServed(format!(
                "ApiVersions v{version}: error {}",
                response.error_code
            )));
        }
        let mut agreed = BTreeMap::new();
        for served in &response.api_keys {
            if let Some((lowest, highest)) = known.get(&served.api_key) {
                let (lowest, highest) =
                    ((*lowest).max(served.min_version), (*highest).min(served.max_version));
                if lowest > highest {
                    continue;
                }
                let version = match self.versions {
                    // Not from the client's own stream: it draws what it would draw without them.
                    Versions::Drawn if is_errand(served.api_key) => {
                        let drawn = crate::record::mix(connection.id << 16 ^ served.api_key as u64);
                        lowest + (drawn % (highest - lowest + 1) as u64) as i16
                    }
                    _ => self.choose(lowest, highest),
                };
                agreed.insert(served.api_key, version);
            }
        }
        connection.agree(agreed);
        Ok(())
    }

    fn choose(&mut self, lowest: i16, highest: i16) -> i16 {
        match self.versions {
            Versions::Newest => highest,
            Versions::Oldest => lowest,
            Versions::Drawn => self.random.random_range(lowest..=highest),
        }
    }
}
