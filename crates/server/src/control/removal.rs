//! Erasures and purges on order. The order itself is the own record: when it is durable the journal carries it out, whoever waits.

use sigillo_journal::ReadError;
use sigillo_model::{
    class::Class,
    ids::RetentionId,
    note::NOTE_MAX_BYTES,
    policy::Policy,
    statement::{Act, Order},
};
use sigillo_proto::v1::RemovalResponse;
use tonic::Status;

use super::{Caller, Shared};
use crate::own::Event;

/// Carries out what two officers have signed.
pub(super) async fn execute(shared: &Shared, caller: &Caller, order: &[u8]) -> Result<RemovalResponse, Status> {
    if order.len() > NOTE_MAX_BYTES {
        return Err(Status::invalid_argument(format!("an order has at most {NOTE_MAX_BYTES} bytes")));
    }
    let order = Order::parse(order, shared.journal.origin())
        .map_err(|error| Status::invalid_argument(format!("the order can't be read: {error}")))?;
    let officers = shared.log.trust().map(Policy::officers).unwrap_or_default();
    if officers.is_empty() {
        return Err(Status::failed_precondition(
            "the server's trust file names no officers: add `officer` lines, and name the file in [checkpoint]",
        ));
    }
    let (proposer, approver) = order.check(officers).map_err(|error| Status::permission_denied(error.to_string()))?;
    let name = |place: usize| officers.get(place).map(|key| key.name().to_owned()).unwrap_or_default();
    let event = match &order.act {
        Act::Erase(erasure) => {
            let (reader, asked) = (shared.journal.reader(), erasure.clone());
            let refused = tokio::task::spawn_blocking(move || reader.refuses(&asked)).await;
            if let Some(reason) = refused.map_err(|error| Status::internal(error.to_string()))?.map_err(unreadable)? {
                return Err(Status::failed_precondition(reason));
            }
            caller.act("journal.erasure_ordered").body(format!(
                "an erasure of {} records is carried out: {}",
                erasure.targets.len(),
                erasure.basis
            ))
        }
        Act::Keep(retention) => caller
            .act("journal.retention_ordered")
            .target("retention", &retention.class.to_string())
            .body(format!("retention class {} is kept for {} seconds", retention.class, retention.keep_s)),
    };
    let event = event.text("proposed_by", name(proposer)).text("approved_by", name(approver));
    carry_out(shared, event.original(order.note().to_bytes())).await
}

/// Purges what is due of a retention class.
pub(super) async fn purge(shared: &Shared, caller: &Caller, class: u32) -> Result<RemovalResponse, Status> {
    let class = u16::try_from(class).map(RetentionId::new);
    let class = class.map_err(|_| Status::invalid_argument("a retention class has a number below 65,536"))?;
    if class == Class::Journal.retention() {
        return Err(Status::failed_precondition(
            "the product's own records are not purged: they hold the statements and registers by which the others are read",
        ));
    }
    let now = shared.clock.now().map_err(|stepped| {
        Status::failed_precondition(format!("the clock was stepped by {} ns: nothing is purged by it", stepped.by_ns))
    })?;
    let reader = shared.journal.reader();
    let planned = tokio::task::spawn_blocking(move || reader.plan_purge(class, now)).await;
    let planned = planned.map_err(|error| Status::internal(error.to_string()))?.map_err(unreadable)?;
    let purge = planned.ok_or_else(|| {
        Status::failed_precondition(format!(
            "nothing of retention class {class} is due: no retention order is in force for it, or all that is due was purged"
        ))
    })?;
    let event = caller
        .act("journal.purge")
        .target("retention", &class.to_string())
        .body(format!("what is due of retention class {class} is purged, up to record {}", purge.to))
        .original(purge.text(shared.journal.origin()));
    carry_out(shared, event).await
}

/// Records the statement, waits until it is carried out, and records that too.
async fn carry_out(shared: &Shared, event: Event) -> Result<RemovalResponse, Status> {
    let unrecorded = |error| Status::unavailable(format!("what can't be recorded is not done: {error}"));
    let receipt = shared.own.compose(|_| Ok(event)).await.map_err(unrecorded)?;
    let statement = receipt.seq.get();
    let done = shared.journal.removal(statement).await.map_err(|error| Status::unavailable(error.to_string()))?;
    let Some(done) = done else { return Ok(RemovalResponse { statement, ..RemovalResponse::default() }) };
    let told = Event::new("journal.removal_done")
        .body(format!("what the statement of record {statement} takes is in no file of the database any more"))
        .number("statement", statement)
        .number("records", done.records)
        .number("parts", done.parts)
        .number("bytes", done.bytes);
    shared.own.note(told).await;
    Ok(RemovalResponse { statement, records: done.records, parts: done.parts, bytes: done.bytes })
}

fn unreadable(error: ReadError) -> Status {
    tracing::error!(%error, "the journal could not be read");
    match error {
        ReadError::Altered(finding) => Status::data_loss(format!("the journal does not verify: {finding}")),
        ReadError::Store(_) | ReadError::Beyond { .. } => Status::unavailable(error.to_string()),
    }
}
