//! What clients ask for that is not built yet: groups, transactions. The protocol has no answer that says so for good;
//! clients retry without a word, or show an empty list. So the log says it: who asks for what, and what to do.
//!
//! Never: more than one line a minute for a client id and what it asks for.

use super::{RequestContext, services::Services};

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted<'a> {
    /// The coordinator of a consumer group.
    Group(&'a str),
    /// The coordinator of a share group.
    ShareGroup(&'a str),
    /// The coordinator of a transactional id, or a producer id for it.
    Transactions(&'a str),
    /// The groups that there are.
    Groups,
    /// Transactions that there are.
    TransactionList,
}

impl Wanted<'_> {
    /// A name for the kind, what is asked for and what comes of it, and what to do.
    fn told(self) -> (&'static str, String, &'static str) {
        const GROUPS: &str = "There are no consumer groups yet: until there are, let consumers assign partitions by hand \
                              (assign, not subscribe) and keep their own offsets";
        const TRANSACTIONS: &str = "There are no transactions yet: until there are, leave transactional.id unset; \
                                    idempotent producers work";
        match self {
            Wanted::Group(id) => {
                ("group", format!("wants to join or look at group {}, and waits", quoted(id)), GROUPS)
            }
            Wanted::ShareGroup(id) => (
                "share group",
                format!("wants the coordinator of share group {}, and waits", quoted(id)),
                "There are no share groups yet: let consumers assign partitions by hand",
            ),
            Wanted::Transactions(id) => (
                "transactions",
                format!("wants transactions under the id {}, and waits", quoted(id)),
                TRANSACTIONS,
            ),
            Wanted::Groups => ("groups", "asks for the groups, and is shown none".to_owned(), GROUPS),
            Wanted::TransactionList => {
                ("transaction list", "asks for transactions, and is shown none".to_owned(), TRANSACTIONS)
            }
        }
    }

    fn id(&self) -> &str {
        match self {
            Wanted::Group(id) | Wanted::ShareGroup(id) | Wanted::Transactions(id) => id,
            Wanted::Groups | Wanted::TransactionList => "",
        }
    }
}

/// What a client sent, where it cannot break the line or fill it.
fn quoted(text: &str) -> String {
    format!("{:?}", super::services::shown(text))
}

/// Puts into the log that `context` asks for what is not there.
pub(super) fn say(services: &Services, context: &RequestContext, wanted: Wanted<'_>) {
    let client = context.client_id.as_deref().unwrap_or_default();
    let (kind, request, advice) = wanted.told();
    // Lengths first, so that no two pairs of names are one subject.
    let (client, id) = (super::services::shown(client), super::services::shown(wanted.id()));
    let subject = format!("{kind} {} {client}{id}", client.len());
    let connection = &context.connection;
    services
        .complaints
        .say_about(subject, format_args!("client {client:?} ({connection}) {request}. {advice}"));
}
