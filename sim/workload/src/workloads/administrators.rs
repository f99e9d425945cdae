//! Several administrators at once: they create, delete and grow the same topics, and look at them.
//!
//! The model: all of a plan use one name at a time, without regard to each other. A call without an answer may come into effect
//! at any later time, so that after a few of them the name tells little: then all go on to the next.
//! Never: a call that is repeated; a judgement, which is for the law `topics_linearizable`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use gracchus_checker::{AdminAnswer, AdminCall, EventKind};
use rand::Rng;
use uuid::Uuid;

use super::{Context, until_drain};
use crate::{
    client::{ClientError, Topic, create_partitions, create_topic, delete_topic, find_named},
    plan::{AdministratorsPlan, TopicPlan},
};

/// So many calls without an answer may concern one name.
const MOST_OPEN: u32 = 3;
/// Error codes that say that nothing was changed, and why: unknown topic, exists, too few partitions.
const REFUSALS: [i16; 3] = [3, 36, 37];

/// What the administrators of a plan share: calls without an answer so far.
#[derive(Debug, Default)]
pub(crate) struct SharedNames {
    unanswered: AtomicU32,
}

/// Administers until the drain begins.
pub(crate) async fn administer(mut context: Context, plan: AdministratorsPlan, names: Arc<SharedNames>) {
    let phase = context.phase.clone();
    until_drain(phase, async {
        loop {
            let pause = context.random.random_range(1..=plan.pause_ms.max(1));
            context.link.env.sleep(Duration::from_millis(pause.into())).await;
            let name = format!("shared-{}", names.unanswered.load(Ordering::Relaxed) / MOST_OPEN);
            act(&mut context, &name, &names).await;
        }
    })
    .await;
}

async fn act(context: &mut Context, name: &str, names: &SharedNames) {
    let partitions = context.random.random_range(1..=3);
    let what = match context.random.random_range(0..10) {
        0..=2 => AdminCall::Create { partitions },
        3..=4 => AdminCall::Delete,
        5 => AdminCall::Grow { count: partitions + 1 },
        _ => AdminCall::Look,
    };
    // Whoever is connected to now is asked.
    context.link.connection().await;
    context.ops += 1;
    let (client, call) = (context.number, u64::from(context.number) << 40 | context.ops);
    context.recorder.tell(EventKind::AdminAsked { client, call, name: name.into(), what });
    let answer = match ask(context, name, what).await {
        Ok(answer) => {
            context.recorder.progress();
            answer
        }
        Err(error) => {
            context.link.note(&error);
            AdminAnswer::Unknown
        }
    };
    if answer == AdminAnswer::Unknown {
        names.unanswered.fetch_add(1, Ordering::Relaxed);
    }
    context.recorder.tell(EventKind::AdminAnswered { client, call, answer });
    if answer == AdminAnswer::Unknown {
        context.link.back_off().await;
    }
}

async fn ask(context: &mut Context, name: &str, what: AdminCall) -> Result<AdminAnswer, ClientError> {
    let link = &mut context.link;
    let code = match what {
        AdminCall::Create { partitions } => {
            create_topic(link, &TopicPlan::plain(name.to_owned(), partitions)).await?
        }
        AdminCall::Delete => delete_topic(link, &named(name), false).await?,
        AdminCall::Grow { count } => create_partitions(link, &named(name), count).await?,
        AdminCall::Look => {
            let found = find_named(link, name).await?;
            let (topic_id, partitions) =
                found.map_or((0, 0), |found| (found.id.as_u128(), found.leader_epochs.len() as i32));
            return Ok(AdminAnswer::Shown { topic_id, partitions });
        }
    };
    Ok(match code {
        None => AdminAnswer::Done,
        Some(code) if REFUSALS.contains(&code) => AdminAnswer::Refused { code },
        // A directory is offline, the controller has no time: it may have been done.
        Some(_) => AdminAnswer::Unknown,
    })
}

/// The topic of that name, whichever it is now.
fn named(name: &str) -> Topic {
    Topic {
        name: name.into(),
        id: Uuid::nil(),
        partitions: 1,
        leader_epochs: Vec::new(),
        log_append_time: false,
        synced: true,
        dense: true,
        untimed: false,
        mixed: false,
        ahead: false,
        passing: true,
    }
}
